//! `location` blocks: services with all that is said about their requests, and answers of the proxy's own.

use super::tokens::Directive;
use super::upstreams::{Target, Upstreams};
use super::{Notes, milliseconds, time_text};
use crate::draft::{Respond, Service};

/// A location within its server within the file, as nginx looks things up: the innermost level that says anything about a
/// directive says all of it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'d> {
    pub file: &'d [Directive],
    pub server: &'d [Directive],
    pub location: &'d [Directive],
}

impl<'d> Scope<'d> {
    pub(super) fn all(&self, name: &'d str) -> Vec<&'d Directive> {
        for level in [self.location, self.server, self.file] {
            let found: Vec<&Directive> = level.iter().filter(|directive| directive.name == name).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    pub(super) fn last(&self, name: &'d str) -> Option<&'d Directive> {
        self.all(name).pop()
    }

    fn first_of(&self, name: &'d str) -> &'d str {
        self.last(name).map_or("", Directive::first)
    }
}

/// What a location is here.
pub(super) enum Meant {
    Service(Box<Service>),
    Respond(Respond),
    /// All of it goes to https, with this status.
    Https(u16),
    /// Nothing, or it was told.
    Nothing,
}

/// Facts of the server that its locations need.
pub(super) struct Around<'d> {
    pub upstreams: &'d Upstreams,
    /// `server_name`, the first.
    pub name: Option<&'d str>,
    /// The port, if it listens on one alone.
    pub port: Option<String>,
    /// Pages of `error_page`: locations for them are no services.
    pub pages: &'d [String],
}

pub(super) fn translate(
    location: &Directive,
    scope: Scope<'_>,
    around: &Around<'_>,
    notes: &mut Notes,
) -> Meant {
    for directive in location.children() {
        if directive.name == "location" {
            notes.add(
                directive,
                "a location within a location: give it a prefix of its own",
            );
        } else if directive.name == "set" && around.upstreams.names(directive.first()) {
        } else {
            notes.unknown(directive);
        }
    }
    let (exact, path) = match location.args.as_slice() {
        [path] if path.starts_with('/') => (false, path.clone()),
        [equals, path] if equals == "=" => (true, path.clone()),
        [most, path] if most == "^~" => (false, path.clone()),
        _ => {
            let why = "requests are matched by host and path prefix only: give this part a prefix, or keep nginx behind";
            notes.add(location, why);
            return Meant::Nothing;
        }
    };
    let own = |name: &str| {
        location
            .children()
            .iter()
            .rfind(|directive| directive.name == name)
    };
    if let Some(answer) = own("return") {
        return returned(answer, path, exact, around, notes);
    }
    let Some(pass) = own("proxy_pass").or_else(|| own("grpc_pass")) else {
        let is_page = around.pages.contains(&path) || own("internal").is_some();
        if !is_page {
            notes.add(
                location,
                "it passes nothing on: files and other handlers are not cutover's",
            );
        }
        return Meant::Nothing;
    };
    match service(pass, &path, exact, scope, around, notes) {
        Some(service) => Meant::Service(Box::new(service)),
        None => Meant::Nothing,
    }
}

/// `return CODE text;` or `return 30x URL;`
fn returned(answer: &Directive, path: String, exact: bool, around: &Around<'_>, notes: &mut Notes) -> Meant {
    let status: Option<u16> = answer.first().parse().ok();
    let text = answer.args.get(1).map_or("", String::as_str);
    match status {
        Some(status) if to_https(status, text, around.name) && path == "/" && !exact => Meant::Https(status),
        Some(status @ 200..=599) if exact && !(300..400).contains(&status) && !text.contains('$') => {
            let body = text.to_owned();
            Meant::Respond(Respond { path, status, body })
        }
        _ => {
            notes.add(
                answer,
                "only an exact path is answered by cutover itself: let the app answer this one",
            );
            Meant::Nothing
        }
    }
}

/// `return 301 https://$host$request_uri;`
pub(super) fn to_https(status: u16, url: &str, name: Option<&str>) -> bool {
    let host = url
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_suffix("$request_uri"));
    let same = |host: &str| matches!(host, "$host" | "$server_name" | "$http_host") || Some(host) == name;
    matches!(status, 301 | 302 | 307 | 308) && host.is_some_and(same)
}

fn service(
    pass: &Directive,
    path: &str,
    exact: bool,
    scope: Scope<'_>,
    around: &Around<'_>,
    notes: &mut Notes,
) -> Option<Service> {
    let grpc = pass.name == "grpc_pass";
    let (scheme, rest) = pass
        .first()
        .split_once("://")
        .unwrap_or((if grpc { "grpc" } else { "http" }, pass.first()));
    let (prefix, port) = match scheme {
        "http" => ("", "80"),
        "https" | "grpcs" => ("https://", "443"),
        "grpc" => ("h2c://", "80"),
        _ => {
            notes.add(pass, "http and https are understood, no other scheme");
            return None;
        }
    };
    let unix = rest.starts_with("unix:");
    let (host, uri) = match rest.find('/').filter(|_| !unix) {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let Some(Target { copies, group }) = around.upstreams.target(host, port) else {
        let why = "where this goes is not in the file; in cutover the color is state, not text: fill in blue and green by hand";
        notes.add(pass, why);
        return None;
    };
    let bare = if path == "/" {
        "/"
    } else {
        path.trim_end_matches('/')
    };
    let strip_prefix = match uri {
        None => false,
        Some(uri) if uri == path => false,
        Some("/") if path.ends_with('/') => true,
        Some(_) => {
            notes.add(pass, "a prefix can be taken off, never put on or exchanged");
            false
        }
    };
    let endpoint = |address: &String| format!("{prefix}{address}");
    let mut service = Service {
        name: named(bare),
        path: bare.to_owned(),
        exact,
        strip_prefix,
        blue: copies.blue.iter().map(endpoint).collect(),
        green: copies.green.iter().map(endpoint).collect(),
        guessed: copies.guessed,
        ..Service::default()
    };
    times(&mut service, scope, notes);
    heads(&mut service, host, group, scope, around, notes);
    if prefix == "https://" {
        trust(&mut service, pass, scope, notes);
    }
    Some(service)
}

/// Whose certificate the app has to show.
fn trust(service: &mut Service, pass: &Directive, scope: Scope<'_>, notes: &mut Notes) {
    let plain = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty() && !text.contains('$'));
    service.ca = plain(scope.first_of("proxy_ssl_trusted_certificate"));
    service.server_name = plain(scope.first_of("proxy_ssl_name"));
    if scope.first_of("proxy_ssl_verify") != "on" {
        let why = "nginx did not verify the app's certificate; cutover always does (`tls.ca` for an authority of your own)";
        notes.add(pass, why);
    }
}

/// `/api` → `api`, `/` → `web`
fn named(path: &str) -> String {
    let name: String = path
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    match name.trim_matches('-') {
        "" => "web".to_owned(),
        name => name.chars().take(60).collect(),
    }
}

fn times(service: &mut Service, scope: Scope<'_>, notes: &mut Notes) {
    for (names, connect) in [
        (["proxy_connect_timeout", "grpc_connect_timeout"], true),
        (["proxy_read_timeout", "grpc_read_timeout"], false),
    ] {
        for directive in names.into_iter().filter_map(|name| scope.last(name)) {
            match (milliseconds(directive.first()).filter(|time| *time > 0), connect) {
                (Some(time), true) => service.connect = Some(time_text(time)),
                (Some(time), false) => service.read = Some(time_text(time)),
                (None, _) => notes.add(directive, "this is no time"),
            }
        }
    }
}

/// What is changed in the heads of requests and answers.
fn heads(
    service: &mut Service,
    target: &str,
    group: Option<String>,
    scope: Scope<'_>,
    around: &Around<'_>,
    notes: &mut Notes,
) {
    // What nginx sends when nobody says another.
    let by_itself = match group {
        Some(group) => group,
        None => "upstream".to_owned(),
    };
    service.host = Some(by_itself.clone());
    for name in ["proxy_set_header", "grpc_set_header"] {
        for directive in scope.all(name) {
            let [header, value] = directive.args.as_slice() else {
                continue;
            };
            request_header(
                service,
                &header.to_ascii_lowercase(),
                value,
                &by_itself,
                target,
                around,
                directive,
                notes,
            );
        }
    }
    for directive in scope.all("proxy_hide_header") {
        service.answer_remove.push(directive.first().to_ascii_lowercase());
    }
    for directive in scope.all("add_header") {
        let [header, value, ..] = directive.args.as_slice() else {
            continue;
        };
        let header = header.to_ascii_lowercase();
        // Of the listener, where it is nothing but a time.
        if header == "strict-transport-security" && hsts(value).is_some() {
            continue;
        }
        match value.contains('$') {
            true => notes.add(directive, "variables have no counterpart in headers of answers"),
            false => drop(service.answer_set.insert(header, value.clone())),
        }
    }
}

/// Seconds, when it says nothing else.
pub(super) fn hsts(value: &str) -> Option<u64> {
    value
        .trim()
        .strip_prefix("max-age=")?
        .trim_end_matches(';')
        .trim()
        .parse()
        .ok()
}

#[allow(clippy::too_many_arguments, reason = "the surroundings of one line")]
fn request_header(
    service: &mut Service,
    header: &str,
    value: &str,
    by_itself: &str,
    target: &str,
    around: &Around<'_>,
    directive: &Directive,
    notes: &mut Notes,
) {
    let always = matches!(
        header,
        "connection"
            | "upgrade"
            | "x-real-ip"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-request-id"
    );
    match (header, value) {
        ("host", "$host" | "$http_host" | "$host:$server_port" | "$http_host:$server_port") => {
            service.host = None
        }
        ("host", "$proxy_host") => service.host = Some(by_itself.to_owned()),
        ("host", "$server_name") => service.host = around.name.map(str::to_owned),
        // The variable that also says where requests go: each copy's own name.
        ("host", value) if value == target && value.contains('$') => {
            service.host = Some("upstream".to_owned())
        }
        ("host", value) if !value.contains('$') && !value.is_empty() => service.host = Some(value.to_owned()),
        _ if always => {}
        (_, "") => service.remove.push(header.to_owned()),
        (_, "$server_port") if around.port.is_some() => {
            service
                .set
                .extend(around.port.clone().map(|port| (header.to_owned(), port)));
        }
        (_, value) if value.contains('$') => {
            notes.add(
                directive,
                "variables have no counterpart here; request id, trace and client fields are always sent",
            );
        }
        (_, value) => drop(service.set.insert(header.to_owned(), value.to_owned())),
    }
}
