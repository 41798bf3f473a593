//! The other color besides: assets of the other version, and copies.

use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Message, Proxy, Setup, ok, until};

fn not_found() -> Vec<u8> {
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nmissing".to_vec()
}

/// Has the assets of its own version, and pages.
fn version(color: &'static str) -> Backend {
    Backend::handler(move |request| {
        let path = request.target().split('?').next().unwrap_or_default();
        if !path.starts_with("/assets/") || path.ends_with(&format!(".{color}.js")) {
            ok(color)
        } else {
            not_found()
        }
    })
}

fn start(blue: &Backend, green: &Backend, lines: &str) -> Proxy {
    let proxy = Setup::new().colors(blue, green, lines).start();
    until("green is healthy", || {
        proxy.app()["colors"]["green"]["healthy"] == true
    });
    proxy
}

fn told(answer: &Message) -> (u16, String) {
    (answer.status(), answer.text())
}

const SKEW: &str = "skew.paths = [\"/assets/*\"]";

#[test]
fn an_asset_of_the_other_version_is_found_there() {
    let (blue, green) = (version("blue"), version("green"));
    let proxy = start(&blue, &green, SKEW);
    let mut wire = proxy.client();
    assert_eq!(told(&wire.get("/assets/app.blue.js")), (200, "blue".to_owned()));
    assert_eq!(green.requests().len(), 0, "what is there is not asked for twice");
    let rescued = wire.get("/assets/app.green.js?v=1");
    assert_eq!(told(&rescued), (200, "green".to_owned()));
    assert_eq!(rescued.field("x-cutover-color"), Some("green"));
    assert_eq!(green.request().target(), "/assets/app.green.js?v=1");
    // Nobody has it: the first answer stands, whole, and the connection goes on.
    let missing = wire.get("/assets/none.js");
    assert_eq!(told(&missing), (404, "missing".to_owned()));
    assert_eq!(missing.field("x-cutover-color"), Some("blue"));
    assert_eq!(told(&wire.get("/")), (200, "blue".to_owned()));
    assert_eq!(proxy.metric("cutover_skew_rescued_total", &[]), 1.0);
    // The request ends where it was answered.
    until("nothing is in flight", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
    assert_eq!(
        proxy.metric("cutover_requests_total", &["color=\"green\"", "code=\"200\""]),
        1.0
    );
}

#[test]
fn only_what_was_asked_for_is_asked_again() {
    let blue = Backend::handler(|request| {
        if request.target() == HEALTH {
            ok("")
        } else {
            not_found()
        }
    });
    let green = version("green");
    let proxy = start(&blue, &green, SKEW);
    let mut wire = proxy.client();
    assert_eq!(wire.get("/page.green.js").status(), 404, "another path");
    assert_eq!(wire.post("/assets/app.green.js", "body").status(), 404, "no GET");
    assert_eq!(green.requests().len(), 0);
    assert_eq!(wire.get("/assets/app.green.js").status(), 200);
    // A drained color is asked nothing, and a dead one does no harm.
    proxy.post("drain", json!({ "color": "green" })).done();
    assert_eq!(wire.get("/assets/app.green.js").status(), 404);
    proxy.switch("green");
    proxy.switch("blue");
    green.stop_and_wait();
    assert_eq!(wire.get("/assets/app.green.js").status(), 404);
    assert_eq!(wire.get("/assets/app.green.js").status(), 404);
}

fn counted(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("cutover_mirrored_total", &[&format!("result=\"{result}\"")])
}

#[test]
fn copies_go_to_the_standby_and_their_answers_nowhere() {
    let blue = Backend::blue();
    let green = Backend::handler(|request| {
        if request.target() == "/differs" {
            not_found()
        } else {
            ok("green")
        }
    });
    let proxy = start(&blue, &green, "mirror.percent = 100");
    let mut wire = proxy.client();
    for target in ["/a?b=1", "/differs", "/c"] {
        assert_eq!(told(&wire.get(target)), (200, "blue".to_owned()));
    }
    assert_eq!(wire.post("/d", "body").text(), "blue");
    until("they were compared", || {
        counted(&proxy, "same") == 2.0 && counted(&proxy, "different") == 1.0
    });
    let mut copied: Vec<_> = green.requests();
    assert_eq!(copied.len(), 3, "a POST is never copied");
    copied.sort_by(|a, b| a.start.cmp(&b.start));
    assert_eq!(copied[0].target(), "/a?b=1");
    assert_eq!(copied[0].field("x-cutover-mirror"), Some("1"));
    assert!(
        blue.requests()
            .iter()
            .all(|request| request.field("x-cutover-mirror").is_none())
    );
    assert!(proxy.metric("cutover_mirror_seconds_total", &["side=\"standby\""]) > 0.0);
    // The copies are nobody's requests.
    assert_eq!(proxy.metric("cutover_requests_total", &["color=\"green\""]), 0.0);
    until("nothing is in flight", || {
        proxy.app()["colors"]["green"]["in_flight"] == 0
    });
}

#[test]
fn a_standby_that_hangs_or_is_dead_delays_nobody() {
    let blue = Backend::blue();
    let (go, rest) = std::sync::mpsc::channel::<()>();
    let rest = std::sync::Mutex::new(rest);
    let green = Backend::handler(move |request| {
        if request.target().starts_with("/hang") {
            let _ = rest.lock().unwrap().recv();
        }
        ok("green")
    });
    let proxy = start(&blue, &green, "mirror = { percent = 100, max_in_flight = 2 }");
    let mut wire = proxy.client();
    for _ in 0..10 {
        assert_eq!(told(&wire.get("/hang")), (200, "blue".to_owned()));
    }
    assert_eq!(
        counted(&proxy, "dropped"),
        8.0,
        "two hang, the others are not copied"
    );
    drop(go);
    until("the two were compared", || counted(&proxy, "same") == 2.0);
    green.stop_and_wait();
    let failed = || counted(&proxy, "failed");
    assert_eq!(told(&wire.get("/x")), (200, "blue".to_owned()));
    until("a copy failed, or the standby is known to be gone", || {
        failed() > 0.0 || proxy.app()["colors"]["green"]["healthy"] == false
    });
}
