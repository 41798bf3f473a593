//! A draft as text: keys in the order in which people read them, a comment where somebody has to decide.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{App, Draft, Listener, Service, Tls};

impl Draft {
    /// The file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for line in &self.about {
            comment(&mut out, line);
        }
        comment(
            &mut out,
            "Every key with its default: config/full.toml; `cutover check` names every mistake.",
        );
        if !self.trusted_proxies.is_empty() {
            let proxies = list(&self.trusted_proxies);
            let _ = write!(
                out,
                "\n[server]\ntrusted_proxies = {proxies}    # whose X-Forwarded-For is believed\n"
            );
        }
        if !self.limits.is_empty() {
            out.push_str("\n[limits]\n");
            for (key, value) in &self.limits {
                let _ = writeln!(out, "{key} = {}", text(value));
            }
        }
        for listener in &self.listeners {
            listener.write(&mut out);
        }
        for app in &self.apps {
            app.write(&mut out);
        }
        if !self.open.is_empty() {
            out.push('\n');
            comment(&mut out, "Look at this before you go on:");
            for line in &self.open {
                comment(&mut out, &format!("- {line}"));
            }
        }
        out
    }
}

impl Listener {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "\n[[listener]]\naddress = {}\n", text(&self.address));
        if self.proxy_protocol {
            out.push_str("proxy_protocol = true      # from server.trusted_proxies only\n");
        }
        if let Some(status) = self.redirect_https {
            let _ = writeln!(out, "redirect_https = {status}");
        }
        if !self.respond.is_empty() {
            let one = |of: &super::Respond| {
                let body = match of.body.is_empty() {
                    true => String::new(),
                    false => format!(", body = {}", text(&of.body)),
                };
                format!("{{ path = {}, status = {}{body} }}", text(&of.path), of.status)
            };
            let all: Vec<String> = self.respond.iter().map(one).collect();
            let _ = writeln!(out, "respond = [{}]", all.join(", "));
        }
        if let Some(tls) = &self.tls {
            tls.write(out);
        }
    }
}

impl Tls {
    fn write(&self, out: &mut String) {
        out.push_str("[listener.tls]\n");
        let one =
            |(cert, key): &(String, String)| format!("{{ cert = {}, key = {} }}", text(cert), text(key));
        let all: Vec<String> = self.certificates.iter().map(one).collect();
        let _ = writeln!(
            out,
            "certificates = [{}]    # a renewal is noticed by itself",
            all.join(", ")
        );
        if let Some(version) = &self.min_version {
            let _ = writeln!(out, "min_version = {}", text(version));
        }
        if let Some(ca) = &self.client_ca {
            let _ = writeln!(out, "client_ca = {}", text(ca));
        }
        if let Some(seconds) = self.hsts {
            let _ = writeln!(out, "hsts = \"{seconds}s\"");
        }
    }
}

impl App {
    fn write(&self, out: &mut String) {
        let table = format!("app.{}", key(&self.name));
        let _ = write!(out, "\n[{table}]\n");
        if !self.hosts.is_empty() {
            let _ = writeln!(out, "hosts = {}", list(&self.hosts));
        } else if !self.named.is_empty() {
            let _ = writeln!(
                out,
                "# hosts = {}    # without it any name is answered",
                list(&self.named)
            );
        }
        out.push_str(
            "initial = \"auto\"           # the color of the very first start: the one that is healthy\n",
        );
        let short = match &self.services[..] {
            [one] if one.path == "/" && !one.exact && !one.strip_prefix => Some(one),
            _ => None,
        };
        if let Some(service) = short {
            service.endpoints(out);
        }
        match &self.health {
            Some(path) => {
                let _ = writeln!(out, "health.path = {}", text(path));
            }
            None => out.push_str(
                "# health.path = \"/health\"  # without it an open port counts as healthy: name the path that knows\n",
            ),
        }
        if let Some(size) = &self.body_bytes {
            let _ = writeln!(out, "limits.body_bytes = {}", text(size));
        }
        if !self.pages.is_empty() {
            out.push_str("errors.problem = \"never\"\n");
            let _ = writeln!(out, "errors.pages = {}", map(&self.pages));
        }
        match short {
            Some(service) => service.settings(out),
            None => {
                for service in &self.services {
                    service.write(&table, out);
                }
            }
        }
        if let Some(compose) = &self.compose {
            deploy(&table, compose, out);
        }
    }
}

/// Steps for docker compose, each of them to be changed.
fn deploy(table: &str, compose: &str, out: &mut String) {
    let old = compose.replace("{color}", "{other}");
    let run = |command: String| text(&command);
    let _ = write!(
        out,
        "\n[{table}.deploy]             # `cutover deploy --revision v42`; docs/deploy.md\n\
         steps = [\"start\", \"healthy\", \"smoke\", \"approve\", \"switch\", \"bake\"]\n\
         start = {{ run = {}, timeout = \"6m\" }}\n\
         healthy = {{ timeout = \"2m\" }}\n\
         stop_old = {{ run = {} }}    # `cutover retire`; or put it behind \"bake\"\n\
         on_failure = {{ logs = {} }}\n\
         # [[{table}.deploy.smoke]]   # what must work before anybody is sent there\n\
         # request = \"GET /\"\n\
         # expect = {{ status = \"200\" }}\n",
        run(format!("docker compose up -d {compose}")),
        run(format!("docker compose stop {old}")),
        run(format!("docker compose logs --tail 50 {compose}")),
    );
}

impl Service {
    fn write(&self, table: &str, out: &mut String) {
        let _ = write!(out, "\n[{table}.service.{}]\n", key(&self.name));
        let word = if self.exact { "path" } else { "path_prefix" };
        let _ = writeln!(out, "{word} = {}", text(&self.path));
        if self.strip_prefix {
            out.push_str("strip_prefix = true\n");
        }
        self.endpoints(out);
        self.settings(out);
    }

    fn endpoints(&self, out: &mut String) {
        let _ = writeln!(out, "blue = {}", list(&self.blue));
        let hint = match (&self.guessed, self.green.is_empty()) {
            (Some(place), _) => format!("    # a guess, from {place}"),
            (None, true) => "                   # the second copy of the app: fill it in".to_owned(),
            (None, false) => String::new(),
        };
        let _ = writeln!(out, "green = {}{hint}", list(&self.green));
    }

    fn settings(&self, out: &mut String) {
        if let Some(host) = &self.host {
            let _ = writeln!(out, "headers.host = {}", text(host));
        }
        for (key, values) in [("request.set", &self.set), ("response.set", &self.answer_set)] {
            if !values.is_empty() {
                let _ = writeln!(out, "headers.{key} = {}", map(values));
            }
        }
        for (key, names) in [
            ("request.remove", &self.remove),
            ("response.remove", &self.answer_remove),
        ] {
            if !names.is_empty() {
                let _ = writeln!(out, "headers.{key} = {}", list(names));
            }
        }
        let read = |key: &str| self.read.as_ref().map(|time| format!("{key} = {}", text(time)));
        let connect = self
            .connect
            .as_ref()
            .map(|time| format!("connect = {}", text(time)));
        let times: Vec<String> = [connect, read("first_byte"), read("idle")]
            .into_iter()
            .flatten()
            .collect();
        if !times.is_empty() {
            let _ = writeln!(out, "timeouts = {{ {} }}", times.join(", "));
        }
        for (key, value) in [("tls.server_name", &self.server_name), ("tls.ca", &self.ca)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{key} = {}", text(value));
            }
        }
    }
}

fn comment(out: &mut String, line: &str) {
    let plain = line.replace(char::is_control, " ");
    let _ = writeln!(out, "# {plain}");
}

/// A string of TOML. `${` is an environment variable's in the file, so it is written as what it is.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(values: &[String]) -> String {
    let all: Vec<String> = values.iter().map(|value| text(value)).collect();
    format!("[{}]", all.join(", "))
}

fn map(values: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{} = {}", key(name), text(value)))
        .collect();
    format!("{{ {} }}", all.join(", "))
}

/// A key, quoted where it must be.
fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare { name.to_owned() } else { text(name) }
}
