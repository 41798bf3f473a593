//! `server` blocks: listeners with their certificates, and an app for each thing that is served.

use std::collections::{BTreeMap, BTreeSet};

use super::locations::{self, Around, Meant, Scope};
use super::tokens::Directive;
use super::upstreams::Upstreams;
use super::{Notes, bytes, size_text};
use crate::draft::{App, Draft, Listener, Respond, Tls};

/// nginx's own limit of a request body.
const BODY_DEFAULT: u64 = 1 << 20;

/// Networks that nobody from outside comes from.
const PRIVATE: [&str; 5] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// `listen`
#[derive(Clone, Debug)]
struct Listen {
    address: String,
    port: Option<String>,
    tls: bool,
    proxy_protocol: bool,
    default: bool,
}

/// One `server` block.
struct Site {
    listens: Vec<Listen>,
    /// Names without wildcards in the middle, regular expressions and `_`.
    hosts: Vec<String>,
    /// It answers to any name that no other has: `_`, or no name at all.
    any: bool,
    /// Everything goes to https.
    https: Option<u16>,
    respond: Vec<Respond>,
    tls: Tls,
    /// What it serves, if it serves anything; without hosts.
    app: Option<App>,
}

pub(super) fn translate(level: &[Directive], upstreams: Upstreams, draft: &mut Draft, notes: &mut Notes) {
    let mut upstreams = upstreams;
    let servers = || level.iter().filter(|directive| directive.name == "server");
    for server in servers() {
        let inside = server.children().iter().flat_map(|child| child.all("set"));
        server.all("set").chain(inside).for_each(|set| upstreams.set(set));
    }
    let sites: Vec<Site> = servers()
        .map(|server| site(server, level, &upstreams, notes))
        .collect();
    // Which server answers names that none has: the marked one of each address, or the first.
    let mut default: BTreeMap<&str, usize> = BTreeMap::new();
    for marked in [true, false] {
        for (at, site) in sites.iter().enumerate() {
            for listen in site.listens.iter().filter(|listen| listen.default || !marked) {
                default.entry(&listen.address).or_insert(at);
            }
        }
    }
    let default: BTreeSet<usize> = default.into_values().collect();
    for (at, (site, server)) in sites.iter().zip(servers()).enumerate() {
        for listen in &site.listens {
            listener(site, listen, server, &mut draft.listeners, notes);
        }
        if let Some(app) = &site.app {
            let any = site.any || default.contains(&at);
            add(app.clone(), any, &site.hosts, server, &mut draft.apps, notes);
        }
    }
    one_socket_for_both_families(&mut draft.listeners);
    if draft.trusted_proxies.is_empty() {
        believe_private_networks(level, draft, notes);
    }
    for app in &mut draft.apps {
        app.hosts.sort();
        app.named.sort();
    }
}

fn site(server: &Directive, level: &[Directive], upstreams: &Upstreams, notes: &mut Notes) -> Site {
    let scope = |location| Scope {
        file: level,
        server: server.children(),
        location,
    };
    let listens = listens(server, notes);
    let (hosts, any) = names(server, notes);
    let (pages, paths) = pages(server, scope(&[]), notes);
    let port = match &listens[..] {
        [one] => one.port.clone(),
        _ => None,
    };
    let around = Around {
        upstreams,
        name: hosts.first().map(String::as_str),
        port,
        pages: &paths,
    };
    let mut site = Site {
        tls: tls(&listens, scope(&[]), notes),
        https: None,
        respond: Vec::new(),
        app: None,
        any,
        hosts: hosts.clone(),
        listens,
    };
    for directive in server.children() {
        let of_variable = directive.name == "set" && upstreams.names(directive.first());
        if !of_variable {
            notes.unknown(directive);
        }
    }
    if let Some(answer) = server.all("return").last() {
        let url = answer.args.get(1).map_or("", String::as_str);
        let status = answer.first().parse().unwrap_or(0);
        if locations::to_https(status, url, around.name) {
            site.https = Some(status);
        } else if !matches!(status, 404 | 444) {
            notes.add(answer, "a whole server that answers by itself: let an app answer");
        }
        return site;
    }
    let mut app = App {
        name: label(&hosts, server),
        pages,
        ..App::default()
    };
    for location in server.all("location") {
        match locations::translate(location, scope(location.children()), &around, notes) {
            Meant::Service(service) => app.services.push(*service),
            Meant::Respond(respond) => site.respond.push(respond),
            Meant::Https(status) => site.https = Some(status),
            Meant::Nothing => {}
        }
    }
    unique(&mut app);
    if !app.services.is_empty() {
        app.body_bytes = Some(body(server, scope(&[]), notes));
        site.app = Some(app);
    }
    site
}

fn listens(server: &Directive, notes: &mut Notes) -> Vec<Listen> {
    let mut found = Vec::new();
    for directive in server.all("listen") {
        let has = |word: &str| directive.args.iter().any(|arg| arg == word);
        if has("quic") || has("http3") {
            notes.add(directive, "there is no HTTP/3");
            continue;
        }
        let Some((address, port)) = listen_address(directive.first()) else {
            notes.add(directive, "write an IP address and a port");
            continue;
        };
        found.push(Listen {
            address,
            port,
            tls: has("ssl"),
            proxy_protocol: has("proxy_protocol"),
            default: has("default_server") || has("default"),
        });
    }
    if found.is_empty() && server.all("listen").next().is_none() {
        found.push(Listen {
            address: "0.0.0.0:80".to_owned(),
            port: Some("80".to_owned()),
            tls: false,
            proxy_protocol: false,
            default: false,
        });
    }
    found
}

/// `80`, `*:80`, `127.0.0.1`, `localhost:80`, `[::]:80`, `unix:/path`; the second is the port.
fn listen_address(text: &str) -> Option<(String, Option<String>)> {
    if text.starts_with("unix:") {
        return Some((text.to_owned(), None));
    }
    let whole = if text.parse::<u16>().is_ok() {
        format!("0.0.0.0:{text}")
    } else {
        let text = text.replace("*:", "0.0.0.0:").replace("localhost", "127.0.0.1");
        match text.parse::<std::net::IpAddr>() {
            Ok(ip) => format!("{ip}:80"),
            Err(_) if text.starts_with('[') && text.ends_with(']') => format!("{text}:80"),
            Err(_) => text,
        }
    };
    let address: std::net::SocketAddr = whole.parse().ok()?;
    Some((address.to_string(), Some(address.port().to_string())))
}

/// nginx believes the PROXY header of whoever connects; here somebody must be named.
fn believe_private_networks(level: &[Directive], draft: &mut Draft, notes: &mut Notes) {
    let listens = level.iter().filter(|server| server.name == "server");
    let listens = listens.flat_map(|server| server.all("listen"));
    let mut behind = listens.filter(|listen| listen.args.iter().any(|arg| arg == "proxy_protocol"));
    if let Some(listen) = behind.next() {
        let why = "nginx believed the PROXY header of whoever connects; here private networks are, until you name your balancers in `trusted_proxies`";
        notes.add(listen, why);
        draft.trusted_proxies = PRIVATE.map(str::to_owned).into();
    }
}

/// nginx has a socket for each family; one for `[::]` takes both here.
fn one_socket_for_both_families(listeners: &mut Vec<Listener>) {
    let six: BTreeSet<String> = listeners
        .iter()
        .filter_map(|listener| listener.address.strip_prefix("[::]:").map(str::to_owned))
        .collect();
    listeners.retain(|listener| {
        let port = listener.address.strip_prefix("0.0.0.0:");
        port.is_none_or(|port| !six.contains(port))
    });
}

fn names(server: &Directive, notes: &mut Notes) -> (Vec<String>, bool) {
    let mut hosts = Vec::new();
    let mut any = true;
    for directive in server.all("server_name") {
        for name in &directive.args {
            let name = name.to_ascii_lowercase();
            if name == "_" || name.is_empty() {
                continue;
            }
            any = false;
            let plain = |name: &str| !name.is_empty() && !name.contains(['*', '~', '$', ' ']);
            if plain(&name) {
                match name.strip_prefix('.') {
                    Some(bare) => hosts.extend([bare.to_owned(), format!("*.{bare}")]),
                    None => hosts.push(name),
                }
            } else if name.strip_prefix("*.").is_some_and(plain) {
                hosts.push(name);
            } else {
                notes.add(
                    directive,
                    "names are exact or `*.name`: there are no regular expressions",
                );
            }
        }
    }
    (hosts, any)
}

/// `ssl_*` of the server and the file.
fn tls(listens: &[Listen], scope: Scope<'_>, notes: &mut Notes) -> Tls {
    let mut tls = Tls::default();
    if !listens.iter().any(|listen| listen.tls) {
        return tls;
    }
    let keys = scope.all("ssl_certificate_key");
    for (cert, key) in scope.all("ssl_certificate").into_iter().zip(keys) {
        match cert.first().contains('$') || cert.first().starts_with("data:") {
            true => notes.add(cert, "certificates are files"),
            false => tls
                .certificates
                .push((cert.first().to_owned(), key.first().to_owned())),
        }
    }
    let versions = scope
        .last("ssl_protocols")
        .map(|directive| directive.args.as_slice());
    if let Some(versions) = versions {
        let old = |version: &String| {
            matches!(
                version.as_str(),
                "TLSv1.2" | "TLSv1.1" | "TLSv1" | "SSLv3" | "SSLv2"
            )
        };
        let least = if versions.iter().any(old) { "1.2" } else { "1.3" };
        tls.min_version = Some(least.to_owned());
    }
    if let Some(verify) = scope.last("ssl_verify_client") {
        match (verify.first(), scope.last("ssl_client_certificate")) {
            ("on", Some(ca)) => tls.client_ca = Some(ca.first().to_owned()),
            ("off", _) => {}
            _ => notes.add(
                verify,
                "certificates of clients are wanted or not, never optional",
            ),
        }
    }
    let hsts = |header: &&Directive| {
        let is = header.first().eq_ignore_ascii_case("strict-transport-security");
        locations::hsts(header.args.get(1)?).filter(|_| is)
    };
    tls.hsts = scope.all("add_header").iter().find_map(hsts);
    tls
}

/// The listener of an address, with what this server adds to it.
fn listener(
    site: &Site,
    listen: &Listen,
    server: &Directive,
    listeners: &mut Vec<Listener>,
    notes: &mut Notes,
) {
    let known = listeners
        .iter()
        .position(|listener| listener.address == listen.address);
    let first = known.is_none();
    let at = known.unwrap_or(listeners.len());
    if first {
        listeners.push(Listener {
            address: listen.address.clone(),
            ..Listener::default()
        });
    }
    let Some(listener) = listeners.get_mut(at) else {
        return;
    };
    listener.proxy_protocol |= listen.proxy_protocol;
    for respond in &site.respond {
        if !listener.respond.contains(respond) {
            listener.respond.push(respond.clone());
        }
    }
    if site.https != listener.redirect_https && !first {
        // Another server of the same address serves, or is served.
        let serves = "some names of this address go to https, others are served: cutover redirects a whole listener or nothing of it";
        notes.add(server, serves);
        listener.redirect_https = None;
    } else {
        listener.redirect_https = site.https;
    }
    if listen.tls {
        let tls = listener.tls.get_or_insert_with(Tls::default);
        for pair in &site.tls.certificates {
            if !tls.certificates.contains(pair) {
                tls.certificates.push(pair.clone());
            }
        }
        tls.min_version = site.tls.min_version.clone().or(tls.min_version.take());
        tls.client_ca = site.tls.client_ca.clone().or(tls.client_ca.take());
        tls.hsts = site.tls.hsts.or(tls.hsts);
    }
}

/// An app of its own; or more names for one that is the same.
fn add(app: App, any: bool, hosts: &[String], server: &Directive, apps: &mut Vec<App>, notes: &mut Notes) {
    let same = |known: &&mut App| {
        let bare = |app: &App| App {
            name: String::new(),
            hosts: Vec::new(),
            named: Vec::new(),
            ..app.clone()
        };
        bare(known) == bare(&app)
    };
    let taken = apps.iter().any(|known| known.hosts.is_empty());
    if let Some(known) = apps.iter_mut().find(same) {
        let of_any = known.hosts.is_empty();
        if any && !of_any && !taken {
            known.named.append(&mut known.hosts);
        }
        let list = if known.hosts.is_empty() {
            &mut known.named
        } else {
            &mut known.hosts
        };
        list.extend(
            hosts
                .iter()
                .filter(|host| !list.contains(host))
                .cloned()
                .collect::<Vec<_>>(),
        );
        return;
    }
    let free: Vec<String> = hosts
        .iter()
        .filter(|host| {
            !apps
                .iter()
                .any(|known| known.hosts.contains(host) || known.named.contains(host))
        })
        .cloned()
        .collect();
    let mut app = app;
    if any && !taken {
        app.named = free;
    } else if free.is_empty() {
        let why = "its names are those of another server; an app answers on all listeners: choose by hand";
        notes.add(server, why);
        return;
    } else {
        app.hosts = free;
    }
    let wanted = app.name.clone();
    let mut number = 1;
    while apps.iter().any(|known| known.name == app.name) {
        number += 1;
        app.name = format!("{wanted}-{number}");
    }
    apps.push(app);
}

/// `www.shop.example.com` → `shop`; without a name, that of the upstream.
fn label(hosts: &[String], server: &Directive) -> String {
    let plain = |text: &str| -> String {
        let of = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        text.chars()
            .map(of)
            .take(50)
            .collect::<String>()
            .trim_matches('-')
            .to_owned()
    };
    let first = hosts
        .first()
        .map(|host| host.trim_start_matches("*.").trim_start_matches("www."));
    let of_host = first.and_then(|host| host.split('.').next()).map(plain);
    let of_upstream = || {
        let pass = server
            .children()
            .iter()
            .flat_map(|child| child.all("proxy_pass"))
            .next()?;
        let (_, target) = pass.first().split_once("://")?;
        let name = target.split(['/', ':', '$']).next()?;
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            .then(|| plain(name))
    };
    let name = of_host.or_else(of_upstream).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "web".to_owned())
}

/// Two services of one name get numbers; two of one path cannot be: nginx would not start with them.
fn unique(app: &mut App) {
    let mut taken = BTreeSet::new();
    for service in &mut app.services {
        let wanted = service.name.clone();
        let mut number = 1;
        while !taken.insert(service.name.clone()) {
            number += 1;
            service.name = format!("{wanted}-{number}");
        }
    }
}

/// `client_max_body_size`: one for the app, where nginx may have one a location.
fn body(server: &Directive, scope: Scope<'_>, notes: &mut Notes) -> String {
    let own = scope
        .last("client_max_body_size")
        .map_or(Some(BODY_DEFAULT), |directive| bytes(directive.first()));
    let mut most = own.unwrap_or(BODY_DEFAULT);
    for location in server.all("location") {
        let Some(directive) = location.all("client_max_body_size").last() else {
            continue;
        };
        notes.add(
            directive,
            "an app has one limit for all its paths: it has the largest",
        );
        most = match (most, bytes(directive.first()).unwrap_or(0)) {
            (0, _) | (_, 0) => 0,
            (most, here) => most.max(here),
        };
    }
    size_text(most)
}

/// `error_page CODE… /page.html;` with the file that its location has: by code; and the paths of the pages.
fn pages(server: &Directive, scope: Scope<'_>, notes: &mut Notes) -> (BTreeMap<String, String>, Vec<String>) {
    let mut pages = BTreeMap::new();
    let mut paths = Vec::new();
    for directive in scope.all("error_page") {
        let Some((path, codes)) = directive.args.split_last() else {
            continue;
        };
        paths.push(path.clone());
        let location = server
            .all("location")
            .find(|location| location.args.last() == Some(path));
        let root = |of: &[Directive], name: &str| {
            let found = of.iter().find(|directive| directive.name == name);
            found.map(|directive| directive.first().to_owned())
        };
        let inside = location.map(Directive::children).unwrap_or_default();
        let file = match (
            root(inside, "alias"),
            root(inside, "root").or_else(|| scope.last("root").map(|root| root.first().to_owned())),
        ) {
            (Some(file), _) => Some(file),
            (None, Some(root)) => Some(format!("{}{path}", root.trim_end_matches('/'))),
            (None, None) => None,
        };
        let known = [".html", ".txt", ".json"];
        let codes: Option<Vec<u16>> = codes.iter().map(|code| code.parse().ok()).collect();
        match (
            file.filter(|file| known.iter().any(|end| file.ends_with(end))),
            codes,
        ) {
            (Some(file), Some(codes)) if path.starts_with('/') => {
                pages.extend(codes.into_iter().map(|code| (code.to_string(), file.clone())));
            }
            _ => notes.add(
                directive,
                "write `errors.pages`: a file for a status of cutover's own answers",
            ),
        }
    }
    (pages, paths)
}
