//! What the proxy says itself: pages, problems, maintenance, and what a listener answers.

use serde_json::{Value, json};

use crate::harness::{Backend, Message, Proxy, Setup, Wire, ok, until};

/// An app that hangs up on every request.
fn nobody() -> Backend {
    Backend::script(|_, _| {})
}

fn ask(proxy: &Proxy, accept: &str) -> Message {
    proxy
        .client()
        .ask(format!("GET /x HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"))
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[test]
fn clients_that_ask_for_json_get_a_problem() {
    let app = nobody();
    let proxy = Setup::new().access_log().blue(&app, "").start();
    let answer = ask(&proxy, "application/json, text/plain, */*");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(
        (&problem["title"], &problem["status"]),
        (&json!("Bad Gateway"), &json!(502))
    );
    assert_eq!(problem["detail"], "upstream closed before an answer");
    assert_eq!(problem["request_id"].as_str().unwrap().len(), 32);
    let answer = ask(&proxy, BROWSER);
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(
        answer.text(),
        "502 Bad Gateway: upstream closed before an answer\n"
    );
    // No app at all: the same.
    let lost = proxy
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a b\r\nAccept: application/json\r\n\r\n");
    assert_eq!(
        (lost.status(), lost.field("content-type")),
        (400, Some("application/problem+json"))
    );
}

#[test]
fn the_operators_pages_are_shown() {
    let app = nobody();
    let folder = tempfile::tempdir().unwrap();
    let page = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad_gateway = page("502.html", "<p>{status} {reason}: {message} ({request_id})</p>");
    let any = page("5xx.txt", "sorry\n");
    let lost = page("404.json", "{\"error\":\"{message}\"}");
    let proxy = Setup::new()
        .toml(&format!(
            "[errors]\nretry_after = \"1500ms\"\npages = {{ \"404\" = {lost:?}, \"5xx\" = {any:?} }}"
        ))
        .toml(&format!(
            "[app.web.errors]\npages = {{ \"502\" = {bad_gateway:?} }}"
        ))
        .blue(&app, "hosts = [\"a\"]")
        .in_file()
        .start();
    let answer = ask(&proxy, BROWSER);
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let text = answer.text();
    let id = text
        .strip_prefix("<p>502 Bad Gateway: upstream closed before an answer (")
        .unwrap();
    assert_eq!(id.strip_suffix(")</p>").unwrap().len(), 32);
    assert_eq!(
        ask(&proxy, "application/json").field("content-type"),
        Some("application/problem+json")
    );
    // Without an app, the file's own.
    let lost = proxy.client().ask("GET / HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(lost.field("content-type"), Some("application/json"));
    assert_eq!(lost.text(), "{\"error\":\"no app or service matches\"}");
    // The class's, where the status has none; the same keys apply.
    proxy.post("maintenance", json!({ "on": true })).done();
    let answer = ask(&proxy, "*/*");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "sorry\n"));
    assert_eq!(answer.field("retry-after"), Some("30"));
    proxy.post("maintenance", json!({ "on": false })).done();
    // A page that changed is shown after a reload, the configuration being the same.
    std::fs::write(&any, "very sorry\n").unwrap();
    assert_eq!(proxy.reload().done().json["changed"], true);
    proxy.post("maintenance", json!({ "on": true })).done();
    assert_eq!(ask(&proxy, "*/*").text(), "very sorry\n");
    // One that is gone is a mistake, and changes nothing.
    std::fs::remove_file(&any).unwrap();
    let refused = proxy.reload();
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("5xx.txt"), "{}", refused.text);
    assert_eq!(ask(&proxy, "*/*").text(), "very sorry\n");
}

#[test]
fn the_apps_own_errors_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("5xx.html");
    std::fs::write(&page, "ours").unwrap();
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 6\r\n\r\ntheirs".to_vec()
    });
    let proxy = Setup::new()
        .toml(&format!(
            "[errors]\nproblem = \"always\"\npages = {{ \"5xx\" = {page:?} }}"
        ))
        .blue(&blue, "")
        .in_file()
        .start();
    let answer = ask(&proxy, "application/json");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "theirs"));
    assert_eq!(
        (answer.field("retry-after"), answer.field("content-type")),
        (Some("7"), None)
    );
}

#[test]
fn maintenance_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("maintenance.html");
    std::fs::write(&page, "<h1>Back soon</h1><p>{message}</p>").unwrap();
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .colors(
            &blue,
            &green,
            &format!("errors.maintenance.page = {page:?}\nerrors.maintenance.retry_after = \"10m\""),
        )
        .in_file()
        .start();
    proxy
        .post("maintenance", json!({ "on": true, "message": "back at <9>" }))
        .done();
    let answer = ask(&proxy, BROWSER);
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("600")));
    assert_eq!(answer.text(), "<h1>Back soon</h1><p>back at &lt;9&gt;</p>");
    let problem: Value = serde_json::from_str(&ask(&proxy, "application/json").text()).unwrap();
    assert_eq!(problem["detail"], "back at <9>");
    // The proof of a switch is not stopped by it.
    let reply = proxy.post("switch", json!({ "to": "green" })).done();
    assert_eq!(reply.json["verify"]["result"], "verified", "{}", reply.text);
    proxy.post("maintenance", json!({ "on": false })).done();
    assert_eq!(proxy.says(), "green");
}

#[test]
fn a_listener_answers_itself() {
    let blue = Backend::handler(|request| ok(request.target()));
    let respond = "respond = [{ path = \"/proxy-health\", body = \"healthy\\n\" }, { path = \"/gone\", status = 410 }, \
         { path = \"/robots.json\", body = \"{}\", headers = { Content-Type = \"application/json\", X-A = \"1\" } }]";
    let proxy = Setup::new()
        .listeners(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n{respond}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             redirect_https = 308\n{respond}\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
        ))
        .access_log()
        .blue(&blue, "")
        .start();
    for listener in [0, 1] {
        let mut wire = Wire::tcp(proxy.tcp(listener));
        let answer = wire.get("/proxy-health?probe=1");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "healthy\n"));
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        let answer = wire.get("/gone");
        assert_eq!((answer.status(), answer.field("content-type")), (410, None));
        let answer = wire.get("/robots.json");
        assert_eq!(answer.all("content-type"), ["application/json"]);
        assert_eq!(answer.field("x-a"), Some("1"));
        wire.send("HEAD /proxy-health HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = wire.answer_to("HEAD");
        assert_eq!((head.status(), head.field("content-length")), (200, Some("8")));
        // Health checks of balancers are not always HTTP/1.1, nor do all of them name a host.
        wire.send("GET /proxy-health HTTP/1.0\r\n\r\n");
        assert_eq!(wire.answer().text(), "healthy\n");
    }
    // Exactly these paths, on these listeners; a body that came along belongs to nobody else.
    assert_eq!(proxy.fetch("/proxy-health/").text(), "/proxy-health/");
    assert_eq!(Wire::tcp(proxy.tcp(1)).get("/other").status(), 308);
    assert_eq!(
        Wire::tcp(proxy.tcp(2)).get("/proxy-health").text(),
        "/proxy-health"
    );
    let mut wire = proxy.client();
    assert_eq!(
        wire.post("/proxy-health", "GET /smuggled HTTP/1.1\r\n\r\n")
            .text(),
        "healthy\n"
    );
    assert_eq!(wire.get("/next").text(), "/next");
    let log = proxy.folder().join("access.log");
    until("the others are logged", || {
        std::fs::read_to_string(&log).is_ok_and(|text| {
            ["next", "other", "proxy-health"]
                .iter()
                .all(|path| text.contains(&format!("\"/{path}\"")))
        })
    });
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        text.matches("\"path\":\"/proxy-health\"").count(),
        1,
        "only the app's: {text}"
    );
    assert!(!text.contains("robots"), "{text}");
    assert!(proxy.metric("cutover_requests_total", &["app=\"\"", "code=\"410\""]) >= 2.0);
}

#[test]
fn a_proof_goes_past_a_listeners_own_answers() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .listeners(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nrespond = [{ path = \"/healthz\", body = \"mine\" }]\n",
        )
        .colors(&blue, &green, "")
        .start();
    assert_eq!(proxy.fetch("/healthz").text(), "mine");
    let reply = proxy.post("switch", json!({ "to": "green" })).done();
    assert_eq!(reply.json["verify"]["result"], "verified", "{}", reply.text);
}
