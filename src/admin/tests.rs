//! The doors, from outside: raw HTTP against a real server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde_json::json;

use super::auth::{Peer, check_site};
use super::routes::ROUTES;
use super::testing::{SECRETS, Server, config, request, tokens};
use super::{BODY_MAX, BindError, Code, bind, openapi_document};
use crate::control::fake::probe;
use crate::control::{Intent, Refusal, Wanted};
use crate::rollout::{Color, Trigger};

fn web() -> Server {
    Server::start(&["web"], false)
}

fn post(path: &str, body: &str) -> String {
    request("POST", path, "", body)
}

#[test]
fn a_switch_is_asked_for_and_answered_with_its_generation() {
    let server = web();
    let body = r#"{"to":"green","force":true,"reason":"release 7"}"#;
    let extra = "If-Match: \"g42\"\r\nIdempotency-Key: k1\r\nX-Cutover-Client: cli\r\n";
    let reply = server.unix(&request("POST", "/v1/apps/web/switch", extra, body));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("etag"), Some("\"g43\""));
    let answer = reply.json();
    assert_eq!(answer["schema"], "cutover.outcome/v1");
    for (field, value) in [
        ("app", json!("web")),
        ("generation", json!(43)),
        ("active", json!("green")),
        ("from", json!("blue")),
        ("changed", json!(true)),
        ("dry_run", json!(false)),
        (
            "verify",
            json!({"result": "verified", "requests": 3, "reason": null}),
        ),
    ] {
        assert_eq!(answer[field], value, "{field}");
    }
    let state = server.fake.state();
    let ask = &state.asks[0];
    assert_eq!(ask.app.as_deref(), Some("web"));
    assert_eq!(
        ask.intent,
        Intent::Switch {
            to: Wanted::Color(Color::Green),
            force: true,
            release: false,
        }
    );
    assert_eq!(ask.expect_generation, Some(42));
    assert_eq!(ask.idempotency_key.as_deref(), Some("k1"));
    assert_eq!(ask.reason, "release 7");
    assert_eq!(ask.by.trigger, Trigger::Cli);
    let uid = rustix::process::getuid().as_raw();
    assert!(ask.by.name.contains(&format!("uid {uid}")), "{}", ask.by.name);
}

#[test]
fn every_change_has_its_path() {
    let server = web();
    let cases = [
        ("rollback", "", Intent::Rollback { ignore_health: false }),
        (
            "weight",
            r#"{"green":10}"#,
            Intent::Weight {
                color: Color::Green,
                percent: 10,
                force: false,
            },
        ),
        (
            "weight",
            r#"{"blue":30}"#,
            Intent::Weight {
                color: Color::Blue,
                percent: 30,
                force: false,
            },
        ),
        (
            "drain",
            r#"{"color":"green"}"#,
            Intent::Drain {
                color: Color::Green,
                force: false,
            },
        ),
        (
            "hold",
            r#"{"max":"1500ms"}"#,
            Intent::Hold {
                max: Duration::from_millis(1500),
                idle: false,
            },
        ),
        ("release", "{}", Intent::Release),
        (
            "maintenance",
            r#"{"on":true,"message":"back soon"}"#,
            Intent::Maintenance(Some(Some("back soon".to_owned()))),
        ),
        ("maintenance", r#"{"on":false}"#, Intent::Maintenance(None)),
    ];
    for (verb, body, intent) in cases {
        let reply = server.unix(&post(&format!("/v1/apps/-/{verb}"), body));
        assert_eq!(reply.status, 200, "{verb}: {reply:?}");
        let ask = server.fake.state().asks.pop().unwrap();
        assert_eq!((ask.app, ask.intent), (None, intent), "{verb} {body}");
        assert_eq!(ask.by.trigger, Trigger::Api);
    }
    let body = r#"{"endpoints":{"web":["127.0.0.1:9"]},"revision":"abc"}"#;
    let reply = server.unix(&request("PUT", "/v1/apps/web/colors/green", "", body));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        server.fake.state().asks.pop().unwrap().intent,
        Intent::SetEndpoints {
            color: Color::Green,
            endpoints: [("web".to_owned(), vec!["127.0.0.1:9".to_owned()])].into(),
            revision: Some("abc".to_owned()),
        }
    );
}

#[test]
fn bad_bodies_are_told_what_is_wrong_and_reach_nobody() {
    let server = web();
    let deep = format!("{{\"to\":{}", "[".repeat(5000));
    let long = format!(r#"{{"to":"green","reason":"{}"}}"#, "x".repeat(501));
    let cases = [
        ("switch", "{", "bad_request", "EOF"),
        ("switch", "{}", "bad_request", "missing field `to`"),
        (
            "switch",
            r#"{"to":"green","forse":true}"#,
            "bad_request",
            "unknown field `forse`",
        ),
        (
            "switch",
            r#"{"to":"green","force":1}"#,
            "bad_request",
            "invalid type",
        ),
        ("switch", r#"{"to":"green"} x"#, "bad_request", "trailing"),
        (
            "switch",
            r#"{"to":"green","to":"blue"}"#,
            "bad_request",
            "duplicate field",
        ),
        ("switch", "\u{1}", "bad_request", "expected"),
        ("switch", &deep, "bad_request", "the body"),
        (
            "rollback",
            &format!("{}1{}", "[".repeat(500), "]".repeat(500)),
            "bad_request",
            "the body",
        ),
        ("switch", r#"{"to":"gren"}"#, "invalid", "did you mean `green`"),
        (
            "switch",
            r#"{"to":"green","reason":"a\nb"}"#,
            "invalid",
            "line break",
        ),
        ("switch", &long, "invalid", "longer than 500"),
        ("weight", "{}", "invalid", "name a color"),
        ("weight", r#"{"green":101}"#, "invalid", "0 to 100"),
        ("weight", r#"{"green":-1}"#, "bad_request", "invalid value"),
        ("weight", r#"{"green":1.5}"#, "bad_request", "invalid type"),
        ("weight", r#"{"green":10,"blue":80}"#, "invalid", "do not add up"),
        ("hold", r#"{"max":"x"}"#, "invalid", "no duration"),
        ("hold", r#"{"max":"0"}"#, "invalid", "more than 0"),
        ("hold", r#"{"max":"2h"}"#, "invalid", "at most 1h"),
        ("drain", r#"{"color":"red"}"#, "invalid", "unknown color `red`"),
        (
            "maintenance",
            r#"{"on":false,"message":"x"}"#,
            "invalid",
            "`on: true`",
        ),
    ];
    for (verb, body, code, words) in cases {
        let reply = server.unix(&post(&format!("/v1/apps/web/{verb}"), body));
        assert_eq!(reply.code(), code, "{verb} {body:.60}: {reply:?}");
        assert_eq!(reply.status, 400);
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{verb} {body:.60}: {detail}");
    }
    let reply = server.unix(&request(
        "PUT",
        "/v1/apps/web/colors/gren",
        "",
        r#"{"revision":"a"}"#,
    ));
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid"));
    let reply = server.unix(&request("PUT", "/v1/apps/web/colors/green", "", "{}"));
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("nothing to set")
    );
    assert!(server.fake.state().asks.is_empty());
}

#[test]
fn bodies_are_json_and_bounded() {
    let server = web();
    let extra = "Content-Type: text/plain\r\n";
    let reply = server.unix(&request(
        "POST",
        "/v1/apps/web/switch",
        extra,
        r#"{"to":"green"}"#,
    ));
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (415, "unsupported_media_type")
    );
    let extra = "Content-Type: application/json; charset=utf-8\r\n";
    let reply = server.unix(&request(
        "POST",
        "/v1/apps/web/switch",
        extra,
        r#"{"to":"green"}"#,
    ));
    assert_eq!(reply.status, 200);
    let large = " ".repeat(BODY_MAX + 1);
    let reply = server.unix(&post("/v1/apps/web/switch", &large));
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    let exact = r#"{"to":"blue"}"#.to_owned() + &" ".repeat(BODY_MAX - 13);
    assert_eq!(server.unix(&post("/v1/apps/web/switch", &exact)).status, 200);
    // Refused before its body is looked at, a request still gets its answer.
    let reply = server.tcp(&post("/v1/reload", &" ".repeat(8 * BODY_MAX)));
    assert_eq!((reply.status, reply.code().as_str()), (403, "read_only"));
    let chunk = "x".repeat(BODY_MAX + 1);
    let chunked = format!(
        "POST /v1/apps/web/switch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    assert_eq!(server.unix(&chunked).code(), "body_too_large");
    let head = format!(
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "y".repeat(64 * 1024)
    );
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    // The server may hang up before it has read it all.
    let _ = stream.write_all(head.as_bytes());
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    assert!(line.is_empty() || line.contains("431"), "{line}");
}

#[test]
fn preconditions() {
    let server = web();
    let try_with = |extra: &str| {
        server.unix(&request(
            "POST",
            "/v1/apps/web/switch",
            extra,
            r#"{"to":"standby"}"#,
        ))
    };
    let moved = try_with("If-Match: \"g41\"\r\n");
    assert_eq!((moved.status, moved.code().as_str()), (412, "generation_moved"));
    assert_eq!(moved.header("etag"), Some("\"g42\""));
    let body = moved.json();
    assert_eq!((&body["generation"], &body["expected"]), (&json!(42), &json!(41)));
    assert_eq!(body["current"]["active"], "blue");
    for bad in [
        "42",
        "\"42\"",
        "W/\"g42\"",
        "\"g42\", \"g43\"",
        "\"g+1\"",
        "\"g\"",
        "\"g99999999999999999999\"",
    ] {
        let reply = try_with(&format!("If-Match: {bad}\r\n"));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "bad_request"),
            "{bad}"
        );
    }
    assert_eq!(try_with("If-Match: \"g42\"\r\nIf-Match: \"g42\"\r\n").status, 400);
    assert_eq!(try_with("If-Match: *\r\n").status, 200);
    let key = "k".repeat(200);
    assert_eq!(try_with(&format!("Idempotency-Key: {key}\r\n")).status, 200);
    for bad in [format!("{key}k"), String::new(), "a b".to_owned()] {
        assert_eq!(
            try_with(&format!("Idempotency-Key: {bad}\r\n")).status,
            400,
            "{bad:?}"
        );
    }
}

#[test]
fn refusals_say_everything() {
    let server = web();
    server.fake.refuse(Refusal::Unhealthy {
        color: Color::Green,
        active: Color::Blue,
        probes: vec![probe(Color::Green, false)],
    });
    let reply = server.unix(&post("/v1/apps/web/switch", r#"{"to":"green"}"#));
    assert_eq!((reply.status, reply.code().as_str()), (422, "unhealthy"));
    let body = reply.json();
    assert_eq!(
        (&body["active"], &body["generation"]),
        (&json!("blue"), &json!(42))
    );
    let found = &body["probes"][0];
    for (field, value) in [
        ("endpoint", json!("127.0.0.1:8001")),
        ("url", json!("http://127.0.0.1:8001/healthz")),
        ("status", json!(503)),
        ("latency_ms", json!(4.2)),
        ("verdict", json!("failing")),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
    let reply = server.unix(&post("/v1/apps/wep/switch", r#"{"to":"green"}"#));
    assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_app"));
    let body = reply.json();
    assert_eq!(
        (&body["known"], &body["did_you_mean"]),
        (&json!(["web"]), &json!("web"))
    );
    let cases = [
        (
            Refusal::Busy {
                operation: "switch".to_owned(),
                by: "ci".to_owned(),
            },
            409,
            "busy",
        ),
        (Refusal::NotDrainable("no".to_owned()), 422, "not_drainable"),
        (Refusal::NothingWarm("no".to_owned()), 422, "rollback_impossible"),
        (
            Refusal::RolledBack {
                to: Color::Green,
                back: Color::Blue,
                why: "502".to_owned(),
                generation: 44,
            },
            422,
            "rolled_back",
        ),
        (Refusal::NotDurable("disk full".to_owned()), 507, "not_durable"),
        (Refusal::Degraded("line 3".to_owned()), 409, "degraded"),
        (Refusal::TimedOut("no".to_owned()), 504, "timed_out"),
        (Refusal::Stopping, 503, "stopping"),
    ];
    for (refusal, status, code) in cases {
        server.fake.refuse(refusal);
        let reply = server.unix(&post("/v1/apps/web/rollback", ""));
        assert_eq!((reply.status, reply.code().as_str()), (status, code));
    }
    server.fake.refuse(Refusal::Config("cutover.toml:3:1".to_owned()));
    let reply = server.unix(&post("/v1/reload", ""));
    assert_eq!((reply.status, reply.code().as_str()), (422, "config_invalid"));
}

#[test]
fn codes_are_named_once_and_found_by_name() {
    for code in Code::ALL {
        assert_eq!(Code::named(code.facts().name), Some(code));
    }
    assert_eq!(Code::named("nothing"), None);
}

#[test]
fn wrong_paths_and_methods_are_problems() {
    let server = web();
    let reply = server.unix(&request("GET", "/v1/nothing", "", ""));
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    for (method, path, allow) in [
        ("GET", "/v1/apps/web/switch", "POST"),
        ("DELETE", "/v1/apps/web/colors/green", "PUT"),
        ("POST", "/v1/status", "GET,HEAD"),
        ("GET", "/v1/reload", "POST"),
    ] {
        let reply = server.unix(&request(method, path, "", ""));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (405, "method_not_allowed"),
            "{path}"
        );
        assert_eq!(reply.header("allow"), Some(allow), "{path}");
    }
    assert!(server.fake.state().asks.is_empty());
}

#[test]
fn what_can_be_read() {
    let server = Server::start(&["web", "shop"], false);
    let get = |path: &str| server.tcp(&request("GET", path, "", ""));
    let reply = get("/v1/apps/shop");
    assert_eq!(reply.header("etag"), Some("\"g42\""));
    assert_eq!(reply.json()["app"], "shop");
    assert_eq!(
        reply.json()["colors"]["green"]["services"][0]["endpoints"][0]["health"],
        "failing"
    );
    assert_eq!(get("/v1/apps").json()["apps"].as_array().unwrap().len(), 2);
    assert_eq!(get("/v1/apps").header("etag"), None);
    assert_eq!(get("/v1/apps/-").code(), "which_app");
    assert_eq!(get("/v1/apps/shap").json()["did_you_mean"], "shop");
    assert_eq!(get("/v1/status").json()["schema"], "cutover.status/v1");
    assert_eq!(
        get("/v1/status?app=web").json()["apps"].as_array().unwrap().len(),
        1
    );
    assert_eq!(get("/v1/status?ap=web").code(), "bad_request");
    let history = get("/v1/history?limit=2").json();
    assert_eq!(history["entries"][0]["seq"], 2);
    assert_eq!(history["entries"][0]["by"], "root (uid 0)");
    assert_eq!(get("/v1/history?app=nope").code(), "unknown_app");
    assert_eq!(get("/v1/history?limit=x").status, 400);
    assert_eq!(get("/v1/config").json()["text"], "[admin]\n");
    assert_eq!(get("/metrics").body, "cutover_active 1\n");
    assert_eq!(get("/livez").body, "ok\n");
    assert_eq!(get("/readyz").status, 200);
    assert!(get("/").body.contains("/v1/apps/{app}/switch"));
    assert_eq!(get("/").header("cache-control"), Some("no-store"));
    assert_eq!(
        get("/v1/apps/web/colors/blue/drained?wait=2s").json()["waited_ms"],
        12
    );
    assert_eq!(
        server.fake.state().waits,
        [(Some("web".to_owned()), Color::Blue, Duration::from_secs(2))]
    );
    {
        let mut state = server.fake.state();
        state.overview.ready = false;
        state.overview.not_ready = vec!["web: nothing healthy".to_owned(), "stopping".to_owned()];
    }
    let reply = get("/readyz?verbose");
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "not ok\nweb: nothing healthy\nstopping\n")
    );
    let explain = server.tcp(&post("/v1/explain", r#"{"url":"http://shop/"}"#));
    assert_eq!(explain.json()["color"], "blue");
    assert_eq!(server.fake.state().explained[0].method, "GET");
}

#[test]
fn who_may_do_what_over_tcp() {
    let server = Server::start(&["web"], true);
    let bearer = |secret: &str| format!("Authorization: Bearer {secret}\r\n");
    let [viewer, operator, admin] = SECRETS.map(|(_, _, secret)| bearer(secret));
    let wrong = bearer("operator-secret-9876543210");
    let basic = "Authorization: Basic b3BlcmF0b3I=\r\n";
    let twice = format!("{operator}{operator}");
    let cases = [
        ("GET", "/v1/status", "", 200),
        ("GET", "/v1/status", viewer.as_str(), 200),
        ("GET", "/v1/status", &wrong, 401),
        ("POST", "/v1/explain", "", 200),
        ("POST", "/v1/apps/web/rollback", "", 401),
        ("POST", "/v1/apps/web/rollback", &wrong, 401),
        ("POST", "/v1/apps/web/rollback", basic, 401),
        ("POST", "/v1/apps/web/rollback", &twice, 401),
        ("POST", "/v1/apps/web/rollback", &viewer, 403),
        ("POST", "/v1/apps/web/rollback", &operator, 200),
        ("POST", "/v1/apps/web/rollback", &admin, 200),
        ("POST", "/v1/apps/web/colors/green/probe", "", 401),
        ("POST", "/v1/reload", &operator, 403),
        ("POST", "/v1/reload", &admin, 200),
    ];
    for (method, path, extra, status) in cases {
        let body = if path.ends_with("explain") {
            r#"{"url":"/"}"#
        } else {
            ""
        };
        let reply = server.tcp(&request(method, path, extra, body));
        assert_eq!(reply.status, status, "{method} {path} {extra}: {reply:?}");
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
    let names: Vec<_> = server
        .fake
        .state()
        .asks
        .iter()
        .map(|ask| ask.by.name.clone())
        .collect();
    assert_eq!(names, ["ci", "boss"]);
    // Over the socket the token does not matter, and the header of the CLI is not believed over TCP.
    assert_eq!(server.unix(&post("/v1/reload", "")).status, 200);
    let extra = format!("{operator}X-Cutover-Client: cli\r\n");
    server.tcp(&request("POST", "/v1/apps/web/rollback", &extra, ""));
    assert_eq!(server.fake.state().asks[2].by.trigger, Trigger::Api);
    // A new secret counts at once, the old one no longer.
    let mut files = tokens(server.dir.path());
    std::fs::write(&files[1].file, "a-new-operator-secret").unwrap();
    server.tokens.reload(&files).unwrap();
    let rollback = |extra: &str| {
        server
            .tcp(&request("POST", "/v1/apps/web/rollback", extra, ""))
            .status
    };
    assert_eq!(
        (rollback(&operator), rollback(&bearer("a-new-operator-secret"))),
        (401, 200)
    );
    // A bad file leaves the tokens in use alone.
    files[1].file = server.dir.path().join("missing");
    assert!(server.tokens.reload(&files).is_err());
    assert_eq!(rollback(&bearer("a-new-operator-secret")), 200);
}

#[test]
fn without_tokens_tcp_only_reads() {
    let server = web();
    for route in ROUTES {
        let path = route.path.replace("{app}", "web").replace("{color}", "green");
        if route.needs > crate::config::Role::Viewer {
            let extra = "Authorization: Bearer viewer-secret-0123456789\r\n";
            let reply = server.tcp(&request(route.method.as_str(), &path, extra, ""));
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (403, "read_only"),
                "{path}"
            );
            assert!(reply.body.contains("admin.token_file"));
        }
    }
    assert!(server.fake.state().asks.is_empty() && server.fake.state().reloads.is_empty());
}

#[test]
fn token_files_are_judged() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.tokens = tokens(dir.path());
    config.tokens.truncate(1);
    let file = config.tokens[0].file.clone();
    for (content, words) in [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("short", "5 characters"),
        ("a token with spaces in it", "Authorization"),
        (&"x".repeat(5000), "larger"),
    ] {
        std::fs::write(&file, content).unwrap();
        let error = bind(&config).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("wall"),
            "{content:.10}: {error}"
        );
    }
    std::fs::write(&file, "long-enough-for-a-token").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = bind(&config).unwrap().warnings().to_vec();
    assert!(warnings[0].contains("every user"), "{warnings:?}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(bind(&config).unwrap().warnings().is_empty());
}

#[test]
fn browsers_cannot_be_talked_into_anything() {
    let server = Server::start(&["web"], true);
    let port = server.tcp.port();
    let get = |extra: &str| server.tcp(&request("GET", "/v1/status", extra, ""));
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "10.1.2.3",
        "x@localhost",
        "localhost.evil",
        "",
        "a b",
    ] {
        let reply = get(&format!("Host: {host}\r\n"));
        assert!(reply.status == 403 || reply.status == 400, "{host}: {reply:?}");
    }
    assert_eq!(get("Host: evil.example\r\n").code(), "bad_host");
    for host in [
        "localhost".to_owned(),
        "LOCALHOST:1".to_owned(),
        format!("127.0.0.1:{port}"),
        "[::1]:9900".to_owned(),
        "ops.example".to_owned(),
        "ops.example:9900".to_owned(),
    ] {
        assert_eq!(get(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    let old = "GET /v1/status HTTP/1.0\r\n\r\n";
    assert_eq!(server.tcp(old).code(), "bad_host");
    for origin in [
        "http://evil.example",
        "null",
        "http://localhost:1",
        "file://",
        "http://localhost.evil",
    ] {
        assert_eq!(
            get(&format!("Origin: {origin}\r\n")).code(),
            "bad_origin",
            "{origin}"
        );
    }
    assert_eq!(get("Origin: http://localhost\r\n").status, 200);
    let token = format!("Authorization: Bearer {}\r\n", SECRETS[1].2);
    let change = |site: &str| {
        let extra = format!("{token}Sec-Fetch-Site: {site}\r\n");
        server
            .tcp(&request("POST", "/v1/apps/web/rollback", &extra, ""))
            .status
    };
    assert_eq!((change("cross-site"), change("same-site")), (403, 403));
    assert_eq!((change("same-origin"), change("none")), (200, 200));
    // The socket has no sites.
    assert_eq!(
        server
            .unix(&request("GET", "/v1/status", "Host: x\r\nOrigin: null\r\n", ""))
            .status,
        200
    );
}

#[test]
fn our_own_address_is_a_host() {
    let peer = Peer::Tcp {
        local: "[::ffff:10.1.2.3]:99".parse().unwrap(),
    };
    let with = |host: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        check_site(&peer, &headers, &[], true).is_ok()
    };
    assert!(with("10.1.2.3:99") && with("10.1.2.3"));
    assert!(!with("10.1.2.4"));
}

/// Read lines of an event stream until one satisfies this.
fn read_until(lines: &mut impl Iterator<Item = std::io::Result<String>>, wanted: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let found = line.contains(wanted);
        seen.push(line);
        if found {
            break;
        }
    }
    seen
}

fn subscribe(
    server: &Server,
    path: &str,
    extra: &str,
) -> impl Iterator<Item = std::io::Result<String>> + use<> {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(request("GET", path, extra, "").as_bytes())
        .unwrap();
    BufReader::new(stream).lines()
}

#[test]
fn events_go_on_after_the_last_one_seen() {
    let mut server = web();
    let mut lines = subscribe(&server, "/v1/events?after=0", "Last-Event-ID: 1\r\n");
    let seen = read_until(&mut lines, "\"change 3\"").join("\n");
    assert!(seen.contains("text/event-stream"), "{seen}");
    assert!(
        !seen.contains("change 1") && seen.contains("id: 2") && seen.contains("event: changed"),
        "{seen}"
    );
    server.fake.emit(4);
    let seen = read_until(&mut lines, "\"change 4\"").join("\n");
    assert!(
        seen.contains("id: 4") || read_until(&mut lines, "id: 4").len() < 5,
        "{seen}"
    );
    // Without an id only what is new; with `follow=false` only what is remembered.
    let reply = server.unix(&request("GET", "/v1/events?follow=false", "", ""));
    assert_eq!(reply.body.matches("event: changed").count(), 3);
    let reply = server.unix(&request("GET", "/v1/events?follow=false&after=2", "", ""));
    assert_eq!(reply.body.matches("event: changed").count(), 1);
    assert_eq!(
        server
            .unix(&request("GET", "/v1/events", "Last-Event-ID: x\r\n", ""))
            .status,
        400
    );
    // The end of the server is the end of the stream, not a broken connection.
    server.stop();
    let rest: Result<Vec<_>, _> = lines.collect();
    assert!(rest.is_ok(), "{rest:?}");
    assert!(!server.socket().exists());
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost() {
    let (handle, fake) = crate::control::fake::Fake::start(&["web"]);
    let (_, live) = handle.subscribe(None).await.unwrap();
    // The fake's channel holds four.
    (1..=6).for_each(|id| fake.emit(id));
    let (_stop, stop) = tokio::sync::watch::channel(false);
    let mut stream = super::events::Live::for_test(live, stop);
    let first = format!("{:?}", stream.next().await.unwrap());
    assert!(first.contains("lagged") && first.contains("missed"), "{first}");
    let second = format!("{:?}", stream.next().await.unwrap());
    assert!(second.contains("change 3"), "{second}");
}

#[test]
fn streams_are_bounded() {
    let server = web();
    let mut open: Vec<_> = (0..super::server::LONG_ANSWERS)
        .map(|_| {
            let mut lines = subscribe(&server, "/v1/events?after=2", "");
            read_until(&mut lines, "\"change 3\"");
            lines
        })
        .collect();
    assert_eq!(server.fake.subscribers(), super::server::LONG_ANSWERS);
    let reply = server.unix(&request("GET", "/v1/events", "", ""));
    assert_eq!((reply.status, reply.code().as_str()), (503, "too_many"));
    assert_eq!(server.unix(&request("GET", "/v1/status", "", "")).status, 200);
    // TCP has its own places.
    let reply = server.tcp(&request("GET", "/v1/events?follow=false", "", ""));
    assert_eq!(reply.status, 200);
    open.clear();
}

#[test]
fn a_living_socket_is_refused_and_a_dead_one_taken_over() {
    let server = web();
    let mut again = config(server.dir.path());
    again.address = None;
    let error = bind(&again).unwrap_err();
    assert!(matches!(error, BindError::Living { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("admin.sock") && text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert_eq!(server.unix(&request("GET", "/livez", "", "")).status, 200);

    let dir = tempfile::TempDir::new().unwrap();
    let mut mine = config(dir.path());
    mine.mode = 0o660;
    std::fs::create_dir(dir.path().join("run")).unwrap();
    // A listener that is dropped leaves its name behind, as a killed process does.
    drop(UnixListener::bind(&mine.socket).unwrap());
    let bound = bind(&mine).unwrap();
    let mode = std::fs::metadata(&mine.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(bound);
    assert!(!mine.socket.exists());
    std::fs::write(&mine.socket, "precious").unwrap();
    assert!(matches!(bind(&mine).unwrap_err(), BindError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(&mine.socket).unwrap(), "precious");
    mine.group = Some("no-such-group".to_owned());
    assert!(matches!(bind(&mine).unwrap_err(), BindError::UnknownGroup(_)));
    mine.group = None;
    mine.socket = dir.path().join("x".repeat(200));
    assert!(bind(&mine).unwrap_err().to_string().contains("too long"));
    mine.socket = dir.path().join("other.sock");
    mine.address = Some(server.tcp);
    let text = bind(&mine).unwrap_err().to_string();
    assert!(
        text.contains(&server.tcp.to_string()) && text.contains("ss -ltnp"),
        "{text}"
    );
    assert!(!mine.socket.exists());
}

#[test]
fn a_new_directory_is_as_open_as_the_socket() {
    for (mode, expected) in [(0o600, 0o700), (0o660, 0o755)] {
        let dir = tempfile::TempDir::new().unwrap();
        let mut mine = config(dir.path());
        mine.mode = mode;
        let _bound = bind(&mine).unwrap();
        let found = std::fs::metadata(dir.path().join("run"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        // The umask of the process may take bits away, never add any.
        assert_eq!(found & !expected, 0);
        assert_eq!(found & 0o700, 0o700);
    }
}

#[test]
fn the_document_and_the_routes_are_the_same() {
    let document = openapi_document();
    let mut documented = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.push((method.to_ascii_uppercase(), path.clone()));
        }
    }
    assert_eq!(documented.len(), ROUTES.len());
    // What is documented is there: the router finds path and method. (A long answer would not end: see `follow`.)
    let server = web();
    for (method, path) in &documented {
        let url = path.replace("{app}", "web").replace("{color}", "green");
        let url = if url == "/v1/events" {
            "/v1/events?follow=false"
        } else {
            &url
        };
        let reply = server.unix(&request(method, url, "", ""));
        assert!(
            !matches!(reply.status, 404 | 405 | 500),
            "{method} {path}: {reply:?}"
        );
    }
    // What the router has is documented: every method that a path allows.
    for route in ROUTES {
        let url = route.path.replace("{app}", "web").replace("{color}", "green");
        let reply = server.unix(&request("OPTIONS", &url, "", ""));
        let allowed = reply.header("allow").unwrap().to_owned();
        for method in allowed.split(',').filter(|method| *method != "HEAD") {
            let pair = (method.to_owned(), route.path.to_owned());
            assert!(documented.contains(&pair), "{pair:?} is not documented");
        }
    }
}

#[test]
fn the_document_has_every_schema_it_names() {
    let document = openapi_document();
    let text = document.to_string();
    let named = text.match_indices("#/components/schemas/").map(|(at, prefix)| {
        let rest = &text[at + prefix.len()..];
        rest.split('"').next().unwrap().to_owned()
    });
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut count = 0;
    for name in named {
        assert!(schemas.contains_key(&name), "{name}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

#[test]
fn metrics_and_probes_work_when_the_head_is_asked() {
    let server = web();
    let reply = server.unix(&request("HEAD", "/livez", "", ""));
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
}
