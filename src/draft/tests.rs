//! Drafts as files that `cutover check` accepts, and what becomes of nginx's lines.

use std::path::Path;

use super::*;
use crate::config::{self, Config};

fn accepted(draft: &Draft) -> Config {
    let text = draft.to_toml();
    config::parse(&text, "draft.toml", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

/// An nginx file, translated.
fn of(text: &str) -> (Draft, Vec<nginx::Note>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let nginx::Translated { draft, mut notes } = nginx::read(&file).unwrap();
    for note in &mut notes {
        note.place = note.place.rsplit('/').next().unwrap().to_owned();
    }
    (draft, notes)
}

fn wrong(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let error = nginx::read(&file).unwrap_err().to_string();
    error.rsplit('/').next().unwrap().to_owned()
}

/// A server with one location that passes everything on, and these lines.
fn served(file: &str, server: &str, location: &str) -> (Draft, Vec<nginx::Note>) {
    of(&format!(
        "{file}\nserver {{\nlisten 8080;\n{server}\nlocation / {{ proxy_pass http://127.0.0.1:1; proxy_set_header Host $host;\n{location}\n}} }}"
    ))
}

#[test]
fn every_part_of_a_draft_is_written_as_the_config_has_it() {
    let service = Service {
        name: "api".to_owned(),
        path: "/api".to_owned(),
        strip_prefix: true,
        blue: vec!["https://a:443".to_owned()],
        green: vec!["unix:/run/\"b\\.sock".to_owned()],
        guessed: Some("somewhere".to_owned()),
        connect: Some("2s".to_owned()),
        read: Some("1500ms".to_owned()),
        host: Some("upstream".to_owned()),
        set: [("x-a".to_owned(), "${HOME} \"q\" \\".to_owned())].into(),
        remove: vec!["x-b".to_owned()],
        answer_set: [("x-c".to_owned(), "1".to_owned())].into(),
        answer_remove: vec!["server".to_owned()],
        server_name: Some("app.test".to_owned()),
        ..Service::default()
    };
    let web = Service {
        name: "web".to_owned(),
        path: "/exact".to_owned(),
        exact: true,
        blue: vec!["a:1".to_owned()],
        ..Service::default()
    };
    let draft = Draft {
        about: vec!["two\nlines".to_owned()],
        trusted_proxies: vec!["10.0.0.0/8".to_owned()],
        limits: [("client_idle_timeout".to_owned(), "75s".to_owned())].into(),
        listeners: vec![Listener {
            address: "127.0.0.1:0".to_owned(),
            respond: vec![Respond {
                path: "/ok".to_owned(),
                status: 200,
                body: "fine\n".to_owned(),
            }],
            tls: Some(Tls {
                certificates: vec![("a.pem".to_owned(), "a.key".to_owned())],
                min_version: Some("1.3".to_owned()),
                client_ca: Some("ca.pem".to_owned()),
                hsts: Some(3600),
            }),
            ..Listener::default()
        }],
        apps: vec![App {
            name: "a.b".to_owned(),
            hosts: vec!["a.test".to_owned(), "*.a.test".to_owned()],
            body_bytes: Some("1MiB".to_owned()),
            health: Some("/up".to_owned()),
            services: vec![service, web],
            compose: Some("app-{color}".to_owned()),
            ..App::default()
        }],
        open: vec!["this".to_owned()],
    };
    let config = accepted(&draft);
    let app = &config.apps["a.b"];
    let api = &app.services["api"];
    assert_eq!(api.endpoints.green[0].to_string(), "unix:/run/\"b\\.sock");
    assert!(api.strip_prefix);
    assert_eq!(api.tls.server_name.as_deref(), Some("app.test"));
    assert_eq!(api.timeouts.idle.as_millis(), 1500);
    assert!(draft.to_toml().contains("$${HOME}"));
    let start = app.deploy.step("start").unwrap();
    assert_eq!(
        start.work,
        config::Work::Run(vec![config::CommandLine::Words(
            "docker compose up -d app-{color}"
                .split(' ')
                .map(str::to_owned)
                .collect()
        )])
    );
    assert!(app.deploy.step("stop_old").is_some());
    assert_eq!(config.listeners[0].respond[0].body, "fine\n");
}

#[test]
fn the_files_of_the_five_systems_are_taken_over() {
    for (system, apps, notes) in [
        ("nocturna", vec!["nocturna", "staging"], 0),
        ("forecaster", vec!["active-backend"], 0),
        ("ala", vec!["ala"], 0),
        ("vcci", vec!["vcci"], 1),
        ("mina", vec!["mina"], 0),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs/migrate")
            .join(system)
            .join("nginx.conf");
        let nginx::Translated { draft, notes: found } = nginx::read(&file).unwrap();
        let config = accepted(&draft);
        let names: Vec<&str> = config.apps.keys().map(String::as_str).collect();
        assert_eq!(names, apps, "{}", draft.to_toml());
        assert_eq!(found.len(), notes, "{found:#?}");
        for app in draft.apps.iter().filter(|app| app.name != "staging") {
            for service in &app.services {
                assert!(!service.green.is_empty(), "{system}: {service:#?}");
                assert!(
                    service.guessed.as_ref().unwrap().contains("nginx.conf:"),
                    "{service:#?}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_understood_is_told_with_its_line() {
    let (draft, notes) = of(
        "http {\n  gzip on;\n  server {\n    listen 80;\n    server_name a.test ~^b;\n    frobnicate 1;\n    location / { proxy_pass http://127.0.0.1:1; }\n    \
         location ~ \\.php$ { proxy_pass http://127.0.0.1:2; }\n    location /files/ { root /srv; }\n    location /x/ { proxy_pass http://$where; }\n    \
         allow 10.0.0.0/8;\n    listen 443 quic;\n    include snippets/none.conf;\n  }\n}\nstream { server { listen 1; } }\n",
    );
    let all: Vec<String> = notes
        .iter()
        .map(|note| format!("{}: {}", note.place, note.text))
        .collect();
    assert_eq!(
        all,
        [
            "nginx.conf:2: gzip on;",
            "nginx.conf:5: server_name a.test ~^b;",
            "nginx.conf:6: frobnicate 1;",
            "nginx.conf:8: location ~ \\.php$ {…}",
            "nginx.conf:9: location /files/ {…}",
            "nginx.conf:10: proxy_pass http://$where;",
            "nginx.conf:11: allow 10.0.0.0/8;",
            "nginx.conf:12: listen 443 quic;",
            "nginx.conf:13: include snippets/none.conf;",
            "nginx.conf:16: stream {…}",
        ]
    );
    assert!(notes[2].why.contains("not understood"));
    assert!(notes[6].why.contains("MORE PEOPLE MAY"));
    accepted(&draft);
    let text = draft.to_toml();
    for note in &notes {
        assert!(text.contains(&note.why), "{text}");
    }
}

#[test]
fn a_file_without_the_form_of_one_is_refused_with_the_place() {
    for (text, why) in [
        ("server {\nlisten 80;\n", "nginx.conf:3: the file ends within"),
        ("server }\n", "nginx.conf:1: a `}` that nothing opened"),
        ("}\n", "nginx.conf:1: a `}` that nothing opened"),
        ("a 'b;\n\n", "nginx.conf:1: a ' that is never closed"),
        ("a;\n;", "nginx.conf:2: a directive begins with its name"),
        ("{ }", "nginx.conf:1: a directive begins with its name"),
    ] {
        assert!(wrong(text).starts_with(why), "{text:?}: {}", wrong(text));
    }
    let deep = "a {".repeat(100) + &"}".repeat(100);
    assert!(wrong(&deep).contains("more than 16 blocks"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("loop.conf");
    std::fs::write(&file, "include loop.conf;").unwrap();
    assert!(nginx::read(&file).unwrap_err().to_string().contains("more than"));
    assert!(nginx::read(&folder.path().join("none")).is_err());
}

#[test]
fn includes_are_read_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    write("nginx.conf", "http { include conf.d/*.conf; }");
    write(
        "conf.d/b.conf",
        "server { listen 81; server_name b.test; location / { proxy_pass http://up; } }",
    );
    write("conf.d/a.conf", "upstream up { server 127.0.0.1:1; }");
    write("conf.d/c.txt", "not nginx {");
    let read = nginx::read(&folder.path().join("nginx.conf")).unwrap();
    assert_eq!(read.draft.apps[0].services[0].blue, ["127.0.0.1:1"]);
    assert_eq!(read.notes, []);
}

#[test]
fn the_other_color_is_found_where_people_write_it() {
    for (lines, blue, green) in [
        ("upstream x { server a:1; }", "a:1", ""),
        ("upstream x { server a:1; # green: b:2, b:3\n}", "a:1", "b:2 b:3"),
        ("upstream x {\n server a:1;\n # server b:2;\n}", "a:1", "b:2"),
        (
            "upstream x {\n# blue is a:1, green is b:2.\nserver a:1; }",
            "a:1",
            "b:2",
        ),
        ("upstream x { server a:1; server b:2 backup; }", "a:1", "b:2"),
        ("upstream x { server a:1 down; }", "a:1", ""),
        (
            "upstream x { server a; server unix:/run/x.sock; } # ask evergreen:5",
            "a:80 unix:/run/x.sock",
            "",
        ),
        (
            "upstream x { server [::1]:1; server [::2]; }",
            "[::1]:1 [::2]:80",
            "",
        ),
    ] {
        let (draft, _) = of(&format!(
            "{lines}\nserver {{ location / {{ proxy_pass http://x; }} }}"
        ));
        let service = &draft.apps[0].services[0];
        assert_eq!(
            (service.blue.join(" "), service.green.join(" ")),
            (blue.to_owned(), green.to_owned()),
            "{lines}"
        );
        assert_eq!(service.guessed.is_some(), !green.is_empty(), "{lines}");
    }
    let groups = "upstream app_blue { server a:1; }\nupstream app_green { server b:2; }\n";
    for pass in [
        "http://app_blue",
        "http://app_green",
        "http://app_$active",
        "http://$backend",
    ] {
        let (draft, notes) = of(&format!(
            "{groups}map $cookie_x $backend {{ default app_blue; }}\nserver {{ set $active blue; location / {{ proxy_pass {pass}; }} }}"
        ));
        let service = &draft.apps[0].services[0];
        let found = (
            service.blue.join(" "),
            service.green.join(" "),
            service.guessed.clone(),
        );
        assert_eq!(found, ("a:1".to_owned(), "b:2".to_owned(), None), "{pass}");
        assert!(
            notes.iter().all(|note| note.text.starts_with("set ")),
            "{notes:?}"
        );
    }
}

#[test]
fn listeners_are_found_in_all_their_spellings() {
    for (listen, address) in [
        ("80", "0.0.0.0:80"),
        ("*:81 default_server reuseport", "0.0.0.0:81"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("localhost:82", "127.0.0.1:82"),
        ("[::]:83 ipv6only=off", "[::]:83"),
        ("[::1]", "[::1]:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ] {
        let (draft, notes) = of(&format!(
            "server {{ listen {listen}; location / {{ proxy_pass http://a:1; }} }}"
        ));
        assert_eq!(draft.listeners[0].address, address, "{listen}");
        assert_eq!(notes, [], "{listen}");
    }
    let (draft, _) = of("server { listen 80; listen [::]:80; location / { proxy_pass http://a:1; } }");
    let addresses: Vec<&str> = draft
        .listeners
        .iter()
        .map(|listener| listener.address.as_str())
        .collect();
    assert_eq!(addresses, ["[::]:80"], "one socket takes both families");
    let (draft, notes) = of(
        "server { listen 80; server_name a.test; return 301 https://a.test$request_uri; }\n\
         server { listen 443 ssl proxy_protocol; server_name a.test .b.test; ssl_certificate c; ssl_certificate_key k;\n\
         ssl_protocols TLSv1.3; ssl_client_certificate ca; ssl_verify_client on; location / { proxy_pass http://a:1; } }",
    );
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].why.contains("name your balancers"));
    assert!(draft.trusted_proxies.contains(&"10.0.0.0/8".to_owned()));
    assert_eq!(draft.listeners[0].redirect_https, Some(301));
    let secure = &draft.listeners[1];
    assert!(secure.proxy_protocol);
    let tls = secure.tls.as_ref().unwrap();
    assert_eq!(
        (tls.min_version.as_deref(), tls.client_ca.as_deref()),
        (Some("1.3"), Some("ca"))
    );
    assert_eq!(draft.apps[0].named, ["*.b.test", "a.test", "b.test"]);
    accepted(&draft);
}

#[test]
fn heads_times_and_sizes_are_taken_over_as_nginx_inherits_them() {
    let (draft, notes) = served(
        "proxy_connect_timeout 2;\nclient_max_body_size 20m;\nkeepalive_timeout 30s 20s;\nclient_header_timeout 1m30s;",
        "proxy_hide_header X-Powered-By;\nadd_header X-Frame DENY;",
        "proxy_read_timeout 500ms; proxy_set_header X-Name v1; proxy_set_header Accept-Encoding \"\"; proxy_set_header X-Port $server_port;",
    );
    assert_eq!(notes, []);
    let service = &draft.apps[0].services[0];
    assert_eq!(
        (service.connect.as_deref(), service.read.as_deref()),
        (Some("2s"), Some("500ms"))
    );
    assert_eq!(service.set["x-name"], "v1");
    assert_eq!(service.set["x-port"], "8080");
    assert_eq!(
        (service.remove.join(","), service.answer_remove.join(",")),
        ("accept-encoding".to_owned(), "x-powered-by".to_owned())
    );
    assert_eq!(service.answer_set["x-frame"], "DENY");
    assert_eq!(service.host, None, "$host is the client's");
    assert_eq!(draft.apps[0].body_bytes.as_deref(), Some("20MiB"));
    assert_eq!(draft.limits["client_idle_timeout"], "30s");
    assert_eq!(draft.limits["client_header_timeout"], "90s");
    accepted(&draft);
    // A level that says anything says all of it; without `Host` nginx sends the name of the group.
    let (draft, _) = of(
        "upstream x { server a:1; }\nserver { proxy_set_header Host $host; location / { proxy_pass http://x; proxy_set_header X-A 1; } }",
    );
    assert_eq!(draft.apps[0].services[0].host.as_deref(), Some("x"));
    assert_eq!(
        draft.apps[0].body_bytes.as_deref(),
        Some("1MiB"),
        "nginx's own limit"
    );
}

#[test]
fn no_text_makes_the_reader_panic() {
    let pieces = [
        "server",
        "{",
        "}",
        ";",
        "listen",
        "80",
        "\"",
        "'",
        "\\",
        "$",
        "${",
        "#green a:1\n",
        "location",
        "/",
        "upstream",
        "proxy_pass",
        "http://",
        "é",
    ];
    let mut seed: u64 = 7;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    for _ in 0..400 {
        let mut text = String::new();
        for _ in 0..12 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(seed >> 33).unwrap() % pieces.len();
            text.push_str(pieces[at]);
            text.push(' ');
        }
        std::fs::write(&file, &text).unwrap();
        if let Ok(read) = nginx::read(&file) {
            let _ = read.draft.to_toml();
        }
    }
}
