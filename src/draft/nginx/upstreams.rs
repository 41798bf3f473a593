//! Where nginx sends requests: groups of servers, variables that name one, and which color an address is.

use std::collections::BTreeMap;

use super::tokens::{Comment, Directive};
use super::{Notes, told};

/// The endpoints of both colors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copies {
    pub blue: Vec<String>,
    pub green: Vec<String>,
    /// Where green was found, if nothing but a comment or an unused server says so.
    pub guessed: Option<String>,
}

/// Everything that `proxy_pass` may name.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    groups: BTreeMap<String, Copies>,
    /// Variables: the names or addresses that they stand for, blue's first.
    variables: BTreeMap<String, Copies>,
}

/// What one `proxy_pass` means.
#[derive(Debug)]
pub(super) struct Target {
    pub copies: Copies,
    /// The name of the group, which nginx sends as `Host` when nobody says another.
    pub group: Option<String>,
}

impl Upstreams {
    /// Of the directives of one level, `upstream`, `split_clients`, `map` and `set` among them.
    pub(super) fn of(level: &[Directive], notes: &mut Notes) -> Self {
        let mut found = Self::default();
        for directive in level {
            match (directive.name.as_str(), directive.args.as_slice()) {
                ("upstream", [name, ..]) => {
                    let copies = group(directive, notes);
                    found.groups.insert(name.clone(), copies);
                }
                ("split_clients" | "map", [.., variable]) => {
                    found.variables.insert(variable.clone(), choices(directive));
                }
                _ => {}
            }
        }
        found.pair();
        found
    }

    /// `set $name value;`, as long as it is a name or an address.
    pub(super) fn set(&mut self, directive: &Directive) {
        if let [variable, value] = directive.args.as_slice()
            && !value.contains('$')
        {
            let copies = Copies {
                blue: vec![value.clone()],
                ..Copies::default()
            };
            self.variables.insert(variable.clone(), copies);
        }
    }

    /// Whether a variable says where requests go.
    pub(super) fn names(&self, variable: &str) -> bool {
        let known = |value: &String| {
            self.groups.contains_key(value)
                || address(value, "80").is_some_and(|_| value.contains([':', '.']))
        };
        self.variables
            .get(variable)
            .is_some_and(|copies| copies.blue.iter().all(known))
    }

    /// Groups whose names differ by the color alone are the two colors of one.
    fn pair(&mut self) {
        let pairs: Vec<(String, Vec<String>)> = self
            .groups
            .keys()
            .filter_map(|name| {
                let other = match (name.contains("blue"), name.contains("green")) {
                    (true, false) => name.replace("blue", "green"),
                    (false, true) => name.replace("green", "blue"),
                    _ => return None,
                };
                Some((name.clone(), self.groups.get(&other)?.blue.clone()))
            })
            .collect();
        for (name, other) in pairs {
            let green = name.contains("green");
            if let Some(copies) = self.groups.get_mut(&name) {
                let own = std::mem::take(&mut copies.blue);
                (copies.blue, copies.green) = if green { (other, own) } else { (own, other) };
                copies.guessed = None;
            }
        }
    }

    /// The host of a `proxy_pass`: a group, a variable, or an address with this usual port.
    pub(super) fn target(&self, host: &str, port: &str) -> Option<Target> {
        if let Some(copies) = self.groups.get(host) {
            let with_port = |list: &[String]| list.iter().filter_map(|text| address(text, port)).collect();
            let copies = Copies {
                blue: with_port(&copies.blue),
                green: with_port(&copies.green),
                guessed: copies.guessed.clone(),
            };
            let group = Some(host.to_owned());
            return Some(Target { copies, group });
        }
        if !host.contains('$') {
            let copies = Copies {
                blue: vec![address(host, port)?],
                ..Copies::default()
            };
            return Some(Target { copies, group: None });
        }
        let Some(choices) = self.variables.get(host) else {
            // `app_$active`: the variable is what a script rewrites.
            let (before, rest) = host.split_once('$')?;
            let after =
                rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '{' | '}'));
            let blue = format!("{before}blue{after}");
            return self
                .groups
                .contains_key(&blue)
                .then(|| self.target(&blue, port))?;
        };
        // A variable that stands for a variable is nobody's plain meaning.
        let of = |names: &[String]| -> Option<Vec<Target>> {
            let plain = names.iter().filter(|name| !name.contains('$'));
            plain.map(|name| self.target(name, port)).collect()
        };
        let blue = of(&choices.blue)?;
        let group = blue.first().and_then(|target| target.group.clone());
        let all = |targets: Vec<Target>| -> Vec<String> {
            targets
                .into_iter()
                .flat_map(|target| target.copies.blue)
                .collect()
        };
        let green = of(&choices.green).map(all).unwrap_or_default();
        let mut copies = Copies {
            green,
            guessed: choices.guessed.clone(),
            blue: all(blue),
        };
        if copies.green.is_empty()
            && let Some(paired) = group.as_ref().and_then(|name| self.groups.get(name))
        {
            copies.green.clone_from(&paired.green);
            copies.guessed.clone_from(&paired.guessed);
        }
        Some(Target { copies, group })
    }
}

fn group(directive: &Directive, notes: &mut Notes) -> Copies {
    let mut copies = Copies::default();
    let mut spare = Vec::new();
    for server in directive.all("server") {
        let unused = server.args.iter().any(|arg| arg == "down" || arg == "backup");
        match unused {
            true => spare.push((server.first().to_owned(), told(&server.at))),
            false => copies.blue.push(server.first().to_owned()),
        }
        if server.args.iter().any(|arg| arg.starts_with("weight=")) {
            notes.add(server, "there are no weights within a color, only between colors");
        }
    }
    if copies.blue.is_empty() {
        copies.blue = spare.drain(..).map(|(address, _)| address).collect();
    }
    if let Some((_, place)) = spare.first() {
        copies.guessed = Some(place.clone());
        copies.green = spare.into_iter().map(|(address, _)| address).collect();
    } else {
        from_comments(directive, &mut copies);
    }
    copies
}

/// `10% a; * b;` or `default a; … b;`: the rest is blue, anything else green.
fn choices(directive: &Directive) -> Copies {
    let mut copies = Copies::default();
    for choice in directive.children() {
        let rest = choice.name == "*" || choice.name == "default";
        let list = if rest { &mut copies.blue } else { &mut copies.green };
        if let Some(value) = choice
            .args
            .first()
            .filter(|value| list.is_empty() && !value.is_empty())
        {
            list.push(value.clone());
        }
    }
    if copies.green.is_empty() {
        from_comments(directive, &mut copies);
    }
    copies
}

/// People write the other color beside the one that serves, or comment its line out.
fn from_comments(directive: &Directive, copies: &mut Copies) {
    let within = directive.children().iter().flat_map(|child| &child.comments);
    for comment in directive.comments.iter().chain(within) {
        let mut found = of_comment(comment);
        found.retain(|address| !copies.blue.contains(address));
        if !found.is_empty() {
            copies.green = found;
            copies.guessed = Some(format!("the comment in {}", told(&comment.at)));
            return;
        }
    }
}

fn of_comment(comment: &Comment) -> Vec<String> {
    let text = comment.text.as_str();
    let addresses = |text: &str| -> Vec<String> {
        let words =
            text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '(' | ')'));
        let words = words.map(|word| word.trim_end_matches('.'));
        words.filter(|word| is_address(word)).map(str::to_owned).collect()
    };
    if let Some(rest) = text.strip_prefix("server ") {
        return addresses(rest);
    }
    let word = |at: usize| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let Some((at, green)) = text.match_indices("green").find(|(at, _)| word(*at)) else {
        return Vec::new();
    };
    match addresses(&text[at + green.len()..]) {
        none if none.is_empty() => addresses(text),
        found => found,
    }
}

/// `host:port`, as somebody would write it in a sentence.
fn is_address(word: &str) -> bool {
    let Some((host, port)) = word.rsplit_once(':') else {
        return word.starts_with("unix:");
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// An address with its port, as an endpoint is written.
fn address(text: &str, port: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(format!("unix:{}", path.trim_end_matches(':')));
    }
    let has_port = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1.starts_with(':'),
        None => text.contains(':'),
    };
    match has_port {
        _ if text.is_empty() => None,
        true => Some(text.to_owned()),
        false => Some(format!("{text}:{port}")),
    }
}
