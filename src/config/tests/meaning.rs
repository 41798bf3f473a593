//! What a valid file means: defaults, two levels, the environment, differences.

use std::path::PathBuf;
use std::time::Duration;

use super::{BASE, good, none};
use crate::config::{
    Config, HostHeader, Initial, PathMatch, Probe, Role, WhenLast, diff, load, needs_restart, parse, schema,
};
use crate::rollout::Color;

#[test]
fn what_is_left_out_is_what_the_schema_says() {
    // Write every default out, and nothing may change.
    let mut text = String::new();
    let schema = schema();
    for table in ["server", "admin", "limits", "log"] {
        defaults(&mut text, table, &schema["properties"][table]);
    }
    let app = &schema["properties"]["app"]["additionalProperties"];
    text.push_str("[app.web]\nblue = [\"127.0.0.1:8001\"]\ngreen = [\"127.0.0.1:8002\"]\n");
    for key in ["timeouts", "drain", "switch"] {
        defaults(&mut text, &format!("app.web.{key}"), &app["properties"][key]);
    }
    text.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\n");
    assert!(text.lines().count() > 35, "{text}");
    assert_eq!(good(&text), good(BASE), "{text}");

    // An HTTP probe and an exposed color differ from none by being written.
    let probe = "[app.web.health]\npath = \"/healthz\"\n";
    let mut text = format!("{BASE}{probe}");
    for (key, value) in app["properties"]["health"]["properties"].as_object().unwrap() {
        if let Some(default) = value.get("default") {
            text.push_str(&format!("{key} = {default}\n"));
        }
    }
    assert_eq!(good(&text), good(&format!("{BASE}{probe}")), "{text}");
    let expose = app["properties"]["headers"]["properties"]["expose_color"]["default"].as_str();
    assert_eq!(expose, Some(good(BASE).apps["web"].headers.expose_color.as_str()));
}

fn defaults(text: &mut String, table: &str, schema: &serde_json::Value) {
    text.push_str(&format!("[{table}]\n"));
    for (key, value) in schema["properties"].as_object().unwrap() {
        if let Some(default) = value.get("default") {
            text.push_str(&format!("{key} = {default}\n"));
        }
    }
}

#[test]
fn resolved_defaults_are_never_zero() {
    let config = good(BASE);
    assert!(config.server.workers >= 1);
    assert!(config.limits.connections >= 64);
    assert_eq!(config.apps["web"].limits.connections, config.limits.connections);
    assert_eq!(config.admin.mode, 0o600);
    assert_eq!(good(&format!("{BASE}[admin]\nmode = 0o660\n")).admin.mode, 0o660);
    assert_eq!(
        good(&format!("{BASE}[admin]\nmode = \"0640\"\n")).admin.mode,
        0o640
    );
}

#[test]
fn the_state_directory_comes_from_the_environment() {
    let of = |set: &[(&str, &str)]| {
        let env = |name: &str| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let server = parse(BASE, "x", &env).unwrap();
        (server.server.state_dir, server.admin.socket)
    };
    let at = |dir: &str| (PathBuf::from(dir), PathBuf::from(dir).join("admin.sock"));
    assert_eq!(of(&[]), at("./.cutover"));
    assert_eq!(of(&[("XDG_STATE_HOME", "/s")]), at("/s/cutover"));
    assert_eq!(of(&[("XDG_STATE_HOME", "relative")]), at("./.cutover"));
    assert_eq!(
        of(&[("XDG_STATE_HOME", "/s"), ("STATE_DIRECTORY", "/a:/b")]),
        at("/a")
    );
    assert_eq!(of(&[("STATE_DIRECTORY", "")]), at("./.cutover"));
}

#[test]
fn variables_are_filled_in_and_can_be_escaped() {
    let env = |name: &str| match name {
        "HOST" => Some("shop".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let text = format!(
        "{BASE}[app.web.headers]\nresponse.set = {{ a = \"$${{HOST}} ${{HOST}}${{EMPTY}} $5\" }}\nhost = \"${{HOST}}.example.com\"\n"
    );
    let headers = parse(&text, "x", &env).unwrap().apps["web"].headers.clone();
    assert_eq!(
        headers.response_set,
        [("a".to_owned(), "${HOST} shop $5".to_owned())]
    );
    assert_eq!(headers.host, HostHeader::Fixed("shop.example.com".to_owned()));
    // Values are taken as they are: nothing in the environment is read as TOML, or as a variable.
    let env = |_: &str| Some("\"]\n${B}".to_owned());
    let text = format!("{BASE}[log]\nfile = \"${{A}}\"\n");
    assert_eq!(parse(&text, "x", &env).unwrap().log.file, "\"]\n${B}");
}

#[test]
fn a_service_overrides_its_app_key_by_key() {
    let config = good(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nuri_bytes = 1000\nbody_bytes = 5\n
[app.x]\nactive = \"green\"\ninitial = \"blue\"\n[app.x.limits]\nbody_bytes = \"1KiB\"\n
[app.x.timeouts]\nconnect = \"1s\"\nidle = \"2s\"\n[app.x.health]\npath = \"/h\"\nstatus = \"204\"\nrise = 5\nlast = \"503\"\n
[app.x.service.web]\nblue = [\"w:1\"]\ngreen = [\"w:2\"]\ntimeouts.idle = \"9s\"\nhealth.path = \"/w\"\nhealth.fall = 9\n
[app.x.service.tcp]\npath_prefix = \"/t/\"\nstrip_prefix = true\nblue = [\"t:1\"]\ngreen = [\"t:2\"]\nhealth.kind = \"tcp\"\n
[app.x.service.exact]\npath = \"/e/\"\nblue = [\"e:1\"]\ngreen = [\"e:2\"]\n",
    );
    let app = &config.apps["x"];
    assert_eq!((app.limits.uri_bytes, app.limits.body_bytes), (1000, 1024));
    assert_eq!(
        (app.initial, app.active),
        (Initial::Color(Color::Blue), Some(Color::Green))
    );
    let web = &app.services["web"];
    assert_eq!(web.timeouts.connect, Duration::from_secs(1));
    assert_eq!(web.timeouts.idle, Duration::from_secs(9));
    let Probe::Http(probe) = &web.health.kind else {
        panic!("http is inherited")
    };
    assert_eq!(
        (probe.path.as_str(), probe.status.as_slice()),
        ("/w", [(204, 204)].as_slice())
    );
    assert_eq!(
        (web.health.rise, web.health.fall, web.health.last),
        (5, 9, WhenLast::Refuse)
    );
    assert_eq!(app.services["tcp"].health.kind, Probe::Tcp);
    assert_eq!(app.services["tcp"].health.rise, 5);
    assert_eq!(app.services["tcp"].matches, PathMatch::Prefix("/t".to_owned()));
    assert!(app.services["tcp"].strip_prefix);
    assert_eq!(app.services["exact"].matches, PathMatch::Exact("/e/".to_owned()));
}

#[test]
fn a_path_makes_a_probe_http_unless_its_level_says_tcp() {
    let kind = |app: &str, service: &str| {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.x.health]\n{app}\n[app.x.service.s]\nblue = [\"s:1\"]\n[app.x.service.s.health]\n{service}\n"
        );
        parse(&text, "x", &none).map(|config| match &config.apps["x"].services["s"].health.kind {
            Probe::Tcp => "tcp",
            Probe::Http(_) => "http",
            Probe::Grpc(_) => "grpc",
        })
    };
    assert_eq!(kind("", ""), Ok("tcp"));
    assert_eq!(kind("path = \"/\"", ""), Ok("http"));
    assert_eq!(kind("", "path = \"/\""), Ok("http"));
    assert_eq!(kind("path = \"/\"", "kind = \"tcp\""), Ok("tcp"));
    assert_eq!(kind("kind = \"tcp\"", "path = \"/\""), Ok("http"));
    assert!(kind("kind = \"grpc\"", "").is_err(), "over HTTP/1.1");
    assert_eq!(kind("path = \"/\"", "kind = \"http\""), Ok("http"));
    assert_eq!(kind("status = \"200\"", "path = \"/\""), Ok("http"));
    assert!(kind("kind = \"http\"", "").is_err());
    assert!(kind("path = \"/\"", "kind = \"tcp\"\nstatus = \"200\"").is_err());
}

#[test]
fn tokens_are_those_of_both_keys() {
    let text = format!(
        "{BASE}[admin]\naddress = \"0.0.0.0:9\"\ntoken_file = \"/t\"\n[[admin.token]]\nname = \"ci\"\nrole = \"operator\"\nfile = \"/c\"\n"
    );
    let tokens = good(&text).admin.tokens;
    let shown: Vec<_> = tokens
        .iter()
        .map(|token| (token.name.as_str(), token.role))
        .collect();
    assert_eq!(shown, [("token", Role::Admin), ("ci", Role::Operator)]);
    good(&format!("{BASE}[admin]\naddress = \"127.0.0.1:9\"\n"));
}

#[test]
fn the_same_match_on_different_hosts_and_one_color_alone_are_fine() {
    good(&format!(
        "{BASE}[app.x]\nhosts = [\"x\"]\nblue = [\"h:1\"]\n[app.y]\nhosts = [\"*.x\"]\ngreen = [\"h:1\"]\n"
    ));
}

fn changes(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let (old, new): (Config, Config) = (good(old), good(new));
    (diff(&old, &new), needs_restart(&old, &new))
}

#[test]
fn a_difference_is_told_in_the_words_of_the_file() {
    let none: &[String] = &[];
    assert_eq!(changes(BASE, BASE).0, none);
    let new = format!(
        "{}[[listener]]\naddress = \"0.0.0.0:8080\"\n[app.web.timeouts]\nconnect = \"1m30s\"\n[app.b]\nhosts = [\"b\"]\nblue = [\"b:1\"]\n[server]\nworkers = 7\nshutdown_grace = \"250ms\"\n[log]\naccess = \"off\"\n",
        BASE.replace("8002", "8003")
    );
    let workers = good(BASE).server.workers;
    let (all, restart) = changes(BASE, &new);
    assert_eq!(
        all,
        [
            "log.access: json → off (needs a restart)".to_owned(),
            "server.shutdown_grace: 30s → 250ms".to_owned(),
            format!("server.workers: {workers} → 7 (needs a restart)"),
            "listener 0.0.0.0:8080 added (needs a restart)".to_owned(),
            "app.b added (services: web)".to_owned(),
            "app.web.service.web.green: 127.0.0.1:8002 → 127.0.0.1:8003".to_owned(),
            "app.web.service.web.timeouts.connect: 5s → 1m30s".to_owned(),
        ]
    );
    assert_eq!(restart, [all[0].clone(), all[2].clone(), all[3].clone()]);
    assert_eq!(changes(&new, BASE).0.len(), 7);
}

#[test]
fn only_the_certificates_of_a_listener_change_while_running() {
    let with = |lines: &str| format!("{BASE}[[listener]]\naddress = \"127.0.0.1:8443\"\n{lines}");
    let tls = "[listener.tls]\ncertificates = [{ cert = \"a.pem\", key = \"a.key\" }]\n";
    let two = tls.replace("}]", "}, { cert = \"b.pem\", key = \"b.key\" }]");
    let (lines, restart) = changes(&with(tls), &with(&two));
    let at = "listener 127.0.0.1:8443: tls.certificates";
    assert_eq!(
        lines,
        [format!(
            "{at}: a.pem with a.key → a.pem with a.key, b.pem with b.key"
        )]
    );
    assert!(restart.is_empty());
    for (line, what) in [
        ("min_version = \"1.3\"", "tls.min_version: 1.2 → 1.3"),
        ("client_ca = \"ca.pem\"", "tls.client_ca: none → ca.pem"),
        ("hsts = \"1d\"", "tls.hsts: none → 24h"),
    ] {
        let (lines, restart) = changes(&with(tls), &with(&format!("{tls}{line}\n")));
        assert_eq!(
            lines,
            [format!("listener 127.0.0.1:8443: {what} (needs a restart)")]
        );
        assert_eq!(restart, lines);
    }
    let (lines, restart) = changes(&with(""), &with("redirect_https = 308\n"));
    assert_eq!(
        lines,
        ["listener 127.0.0.1:8443: redirect_https: none → 308 (needs a restart)"]
    );
    assert_eq!(restart, lines);
    // To TLS and back: another listener altogether.
    for (old, new) in [("", tls), (tls, "")] {
        let (lines, restart) = changes(&with(old), &with(new));
        assert!(lines.iter().any(|line| line.starts_with(at)), "{lines:?}");
        assert_eq!(restart, lines);
    }
}

#[test]
fn a_difference_names_headers_but_not_their_values() {
    let with = |value: &str| format!("{BASE}[app.web.headers]\nrequest.set = {{ x-key = \"{value}\" }}\n");
    assert_eq!(
        changes(&with("s3cret"), &with("0ther")).0,
        ["app.web.headers.request.set.x-key: changed"]
    );
    assert_eq!(
        changes(BASE, &with("s3cret")).0,
        ["app.web.headers.request.set.x-key: added"]
    );
    assert_eq!(
        changes(&with("s3cret"), BASE).0,
        ["app.web.headers.request.set.x-key: removed"]
    );
}

#[test]
fn every_difference_is_told() {
    // For each default, another value: if `diff` forgot a key, its change would go unseen.
    for (old, new) in [
        (
            "[server]\nrequire_state = false",
            "[server]\nrequire_state = true",
        ),
        (
            "[server]\ntrusted_proxies = []",
            "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]",
        ),
        ("", "[server]\ncompat_file = \"x\""),
        (
            "",
            "[server]\nstate_dir = \"x\"\n[admin]\nsocket = \"./.cutover/admin.sock\"",
        ),
        ("", "[admin]\nsocket = \"x\""),
        ("", "[admin]\nmode = \"0660\""),
        ("", "[admin]\ngroup = \"x\""),
        ("", "[admin]\naddress = \"127.0.0.1:1\""),
        ("", "[admin]\nhosts = [\"x\"]"),
        ("", "[admin]\ntoken_file = \"x\""),
        ("", "[log]\nfile = \"x\""),
        ("", "[log]\nlevel = \"warn\""),
        ("", "[limits]\nconnections = 77"),
        ("", "[app.web]\nhosts = [\"x\"]"),
        ("", "[app.web]\ninitial = \"blue\""),
        ("", "[app.web]\nactive = \"blue\""),
        ("", "[app.web.limits]\nheader_bytes = 777"),
        ("", "[app.web.limits]\nheader_count = 77"),
        ("", "[app.web.limits]\nuri_bytes = 777"),
        ("", "[app.web.limits]\nbody_bytes = 777"),
        ("", "[app.web.limits]\nclient_header_timeout = \"7s\""),
        ("", "[app.web.limits]\nclient_idle_timeout = \"7s\""),
        ("", "[app.web.limits]\nclient_body_timeout = \"7s\""),
        ("", "[app.web.timeouts]\nfirst_byte = \"7s\""),
        ("", "[app.web.timeouts]\nidle = \"7s\""),
        ("", "[app.web.timeouts]\nupstream_idle = \"7s\""),
        ("", "[app.web.health]\ninterval = \"7s\""),
        ("", "[app.web.health]\ntimeout = \"7s\""),
        ("", "[app.web.health]\nrise = 7"),
        ("", "[app.web.health]\nfall = 7"),
        ("", "[app.web.health]\nlast = \"503\""),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/b\"",
        ),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/a\"\nhost = \"x\"",
        ),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/a\"\nstatus = \"204\"",
        ),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/a\"\nheaders.x = \"y\"",
        ),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/a\"\njson.\"/x\" = 1",
        ),
        (
            "[app.web.health]\npath = \"/a\"",
            "[app.web.health]\npath = \"/a\"\nbody_regex = \"x\"",
        ),
        ("", "[app.web.drain]\nhttp = \"7s\""),
        ("", "[app.web.drain]\nstreams.policy = \"keep\""),
        ("", "[app.web.drain]\nstreams.deadline = \"7s\""),
        ("", "[app.web.drain]\nstreams = { spread = \"7s\" }"),
        ("", "[app.web.headers]\nhost = \"upstream\""),
        ("", "[app.web.headers]\nrewrite_location = true"),
        ("", "[app.web.headers]\nforwarded = true"),
        ("", "[app.web.headers]\nrequest_id = \"\""),
        ("", "[app.web.headers]\nrequest_id_from = \"nobody\""),
        ("", "[app.web.headers]\nexpose_request_id = true"),
        ("", "[app.web.headers]\ntrace = \"start\""),
        ("", "[docker]\nsocket = \"/run/engine.sock\""),
        ("", "[docker]\nproject = \"shop\""),
        ("", "[docker]\nnetwork = \"shop_default\""),
        ("", "[errors]\nproblem = \"never\""),
        ("", "[errors]\nretry_after = \"7s\""),
        ("", "[app.web.errors]\nmaintenance.retry_after = \"7s\""),
        ("", "[app.web.errors]\nmaintenance.page = \"a.html\""),
        ("", "[app.web.errors]\npages.\"5xx\" = \"a.html\""),
        ("", "[app.web.headers]\nrequest.remove = [\"x\"]"),
        ("", "[app.web.headers]\nresponse.remove = [\"x\"]"),
        ("", "[app.web.headers]\nresponse.set.x = \"y\""),
        ("", "[app.web.headers]\nexpose_color = \"\""),
        ("", "[app.web.headers]\nexpose_color = \"x-cutover-color\""),
        ("", "[app.web]\nsend_proxy_protocol = \"v2\""),
        ("", "[app.web.switch]\nrequire = []"),
        ("", "[app.web.switch]\nverify = 7"),
    ] {
        // A second `[app.web]` header would be a duplicate: its keys follow those of the base.
        let whole = |text: &str| format!("{BASE}{}\n", text.trim_start_matches("[app.web]\n"));
        let (lines, _) = changes(&whole(old), &whole(new));
        assert_eq!(lines.len(), 1, "{new}: {lines:?}");
    }
}

#[test]
fn the_examples_load_and_the_full_one_has_every_key() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let minimal = load(&dir.join("minimal.toml"), &none).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(minimal.warnings.items.len(), 1);
    assert_eq!(minimal.warnings.items[0].code, "no_health_path");
    let full = load(&dir.join("full.toml"), &none).unwrap_or_else(|error| panic!("{error}"));
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [&minimal.text, &full.text] {
        let json = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
        let wrong: Vec<_> = validator
            .iter_errors(&json)
            .map(|error| error.to_string())
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    let written: toml::Table = toml::from_str(&full.text).unwrap();
    let written = serde_json::to_value(written).unwrap();
    let mut missing = Vec::new();
    // What both levels have is shown at the app's; the shorthand is shown by another app.
    uncovered(&schema(), &[&written], "", &mut missing);
    missing.retain(|key| {
        !key.starts_with(".app.*.service.*.health.")
            && !key.starts_with(".app.*.service.*.timeouts.")
            && !key.starts_with(".app.*.service.*.headers.")
            && !key.starts_with(".app.*.errors.")
            && !key.starts_with(".app.*.service.*.tls.")
            && !key.starts_with(".app.*.service.*.balance.")
            && !key.starts_with(".app.*.service.*.retry.")
            && !key.starts_with(".app.*.limits.")
            // A step by its name; what it takes is shown by others.
            && !key.starts_with(".app.*.deploy.smoke.")
    });
    assert!(missing.is_empty(), "config/full.toml lacks {missing:?}");
}

/// Keys of the schema that no value has.
fn uncovered(
    schema: &serde_json::Value,
    values: &[&serde_json::Value],
    path: &str,
    missing: &mut Vec<String>,
) {
    if let Some(keys) = schema["properties"].as_object() {
        for (key, sub) in keys {
            let found: Vec<_> = values.iter().filter_map(|value| value.get(key)).collect();
            if found.is_empty() {
                missing.push(format!("{path}.{key}"));
            }
            uncovered(sub, &found, &format!("{path}.{key}"), missing);
        }
    } else if schema["additionalProperties"].is_object() {
        let found: Vec<_> = values
            .iter()
            .filter_map(|value| value.as_object())
            .flat_map(|map| map.values())
            .collect();
        uncovered(
            &schema["additionalProperties"],
            &found,
            &format!("{path}.*"),
            missing,
        );
    } else if schema["items"].is_object() {
        let found: Vec<_> = values
            .iter()
            .filter_map(|value| value.as_array())
            .flatten()
            .collect();
        uncovered(&schema["items"], &found, path, missing);
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [
        "",
        "[app.web]\nblue = [\"a:1\"]",
        "listener = []\n[app.web]",
        "[[listener]]\n[app.web]",
    ] {
        let json = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
        assert!(!validator.is_valid(&json), "{text}");
    }
    for text in [
        "[serverr]",
        "[server]\nworkers = \"4\"",
        "[app.web.health]\nkind = \"icmp\"",
        "[app.web.switch]\nverify = 101",
    ] {
        let text = format!("{BASE}{text}");
        let json = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
        assert!(!validator.is_valid(&json), "{text}");
    }
}
