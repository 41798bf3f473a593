//! What is asked before a switch: who answers, smoke probes, webhooks over TLS, a mirror's verdict, the warm-up; and the
//! way back to a place that is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::harness::backend::{Backend, HEALTH, ok};
use super::harness::desk::Desk;
use super::harness::misbehave::Manners;
use super::harness::proxy::{Proxy, Setup};
use super::harness::service::{Service, Speaks, whole};
use super::harness::tls::{Authority, Kind};
use super::harness::until;

fn revision(of: &Manners, revision: &str) {
    revision.clone_into(&mut of.revision.lock().unwrap());
}

fn announce(proxy: &Proxy, color: &str, revision: &str) {
    let path = format!("/v1/apps/web/colors/{color}");
    proxy.put(&path, json!({ "revision": revision })).done();
}

fn endpoint(proxy: &Proxy, color: &str) -> Value {
    proxy.app()["colors"][color]["services"][0]["endpoints"][0].clone()
}

/// What the last gate of this answer said.
#[track_caller]
fn gate(answer: &Value) -> (String, String) {
    let gates = answer["gates"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let last = gates.last().unwrap_or_else(|| panic!("{answer}"));
    let text = |key: &str| last[key].as_str().unwrap().to_owned();
    (text("verdict"), text("detail"))
}

// --- who answers -------------------------------------------------------------------------------------------------

#[test]
fn another_revisions_health_is_not_this_ones() {
    let (blue, green) = <(Manners, Manners)>::default();
    let apps = [blue.backend("blue"), green.backend("green")];
    let lines = "revision_header = \"x-app-revision\"\nswitch.verify = 0\nguard.every = \"100ms\"\n";
    let proxy = Setup::new().colors(&apps[0], &apps[1], lines).start();
    revision(&green, "r1");
    // Nothing was announced: any revision will do.
    until("green is healthy", || {
        endpoint(&proxy, "green")["health"] == "healthy"
    });
    announce(&proxy, "green", "r2");
    until("it is a stranger", || {
        endpoint(&proxy, "green")["health"] == "unknown"
    });
    let reason = endpoint(&proxy, "green")["last_probe"]["reason"].to_string();
    assert!(
        reason.contains("says x-app-revision: r1, and r2 was announced"),
        "{reason}"
    );
    let refused = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (422, &json!("unhealthy")),
        "{}",
        refused.text
    );
    assert!(refused.text.contains("r2 was announced"), "{}", refused.text);
    revision(&green, "r2");
    proxy.switch("green");
    // The old process comes back under the active color: it keeps the traffic, and the guard takes the switch back.
    revision(&green, "r1");
    until("the guard has gone back", || {
        proxy.app()["bake"]["phase"] == "rolled_back"
    });
    assert_eq!(proxy.says(), "blue");
    // A color of which nobody knows what it is, is nothing to go back to.
    announce(&proxy, "blue", "b1");
    until("blue is a stranger", || {
        endpoint(&proxy, "blue")["health"] == "unknown"
    });
    assert_eq!(proxy.says(), "blue", "and keeps the traffic");
}

#[test]
fn a_health_page_may_name_the_revision() {
    let page = |text: &'static str| {
        Backend::handler(move |request| match request.target() {
            HEALTH => ok(&format!("{{\"ok\":true,\"build\":{{\"version\":\"{text}\"}}}}")),
            _ => ok(text),
        })
    };
    let (blue, green) = (page("v1"), page("v2"));
    let lines = "revision_json = \"/build/version\"\nswitch.require = [\"healthy\", \"identity\"]\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    announce(&proxy, "green", "v3");
    until("it is a stranger", || {
        endpoint(&proxy, "green")["health"] == "unknown"
    });
    announce(&proxy, "green", "v2");
    let answer = proxy.switch("green");
    let (verdict, detail) = gate(&answer.json);
    assert_eq!(verdict, "pass");
    assert!(detail.contains("JSON /build/version: v2"), "{detail}");
}

#[test]
fn a_revision_is_asked_for_over_tls_too() {
    let authority = Authority::new();
    authority.issue("app", &["127.0.0.1"], Kind::Ecdsa);
    let app = |alpn: &'static str| {
        Service::new(Speaks::Tls(authority.server("app", &[alpn], false)), |_| async {
            let mut answer = Response::new(whole("green"));
            answer
                .headers_mut()
                .insert("x-app-revision", "r7".parse().unwrap());
            answer
        })
    };
    for alpn in ["http/1.1", "h2"] {
        let (blue, green) = (Backend::blue(), app(alpn));
        let tables = format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{}\"]\ngreen = [\"https://{}\"]\nrevision_header = \"x-app-revision\"\n\
             health = {{ path = \"/health\", interval = \"50ms\", timeout = \"5s\", identity = false }}\n\
             tls.ca = {:?}\nswitch = {{ require = [\"identity\"], verify = 0 }}\n",
            blue.address(),
            green.address,
            authority.path("ca.pem").display().to_string()
        );
        let proxy = Setup::new().toml(&tables).start();
        announce(&proxy, "green", "r8");
        let refused = proxy.post("switch", json!({ "to": "green" }));
        let (verdict, detail) = gate(&refused.json);
        assert!(
            verdict == "fail" && detail.contains("r7, and r8 was announced"),
            "{detail}"
        );
        announce(&proxy, "green", "r7");
        assert_eq!(gate(&proxy.switch("green").json).0, "pass", "{alpn}");
    }
}

// --- gates -------------------------------------------------------------------------------------------------------

#[test]
fn the_deploys_smoke_probes_are_a_gate() {
    let broken = Arc::<AtomicUsize>::default();
    let told = Arc::clone(&broken);
    let green = Backend::handler(move |request| match (request.method(), request.target()) {
        ("POST", "/v1/orders") if told.load(SeqCst) == 1 => {
            b"HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\nno db".to_vec()
        }
        ("POST", "/v1/orders") => ok("{\"ok\":true,\"code\":\"o-17\"}"),
        ("GET", "/v1/orders/o-17?color=green") => ok("{\"total\":3}"),
        _ => ok("green"),
    });
    let blue = Backend::blue();
    let lines = "switch.require = [\"healthy\", \"smoke\"]\n\
        [[app.web.deploy.smoke]]\nrequest = \"POST /v1/orders\"\nbody = '{\"a\":1}'\nexpect = { json = { \"/ok\" = true } }\n\
        capture = { code = \"/code\" }\n\
        [[app.web.deploy.smoke]]\nrequest = \"GET /v1/orders/{code}?color={color}\"\nexpect = { json = { \"/total\" = 3 } }\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    broken.store(1, SeqCst);
    let refused = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(refused.json["code"], "gate_refused", "{}", refused.text);
    let (verdict, detail) = gate(&refused.json);
    assert!(
        verdict == "fail"
            && detail.contains("probe 1 of 2: POST /v1/orders → 500")
            && detail.contains("no db"),
        "{detail}"
    );
    assert_eq!(proxy.says(), "blue");
    broken.store(0, SeqCst);
    let (verdict, detail) = gate(&proxy.switch("green").json);
    assert_eq!(
        (verdict.as_str(), detail.as_str()),
        ("pass", "2 of 2 probes passed")
    );
    let asked = blue.requests();
    assert!(
        asked.iter().all(|request| !request.target().starts_with("/v1")),
        "{asked:?}"
    );
}

#[test]
fn webhooks_are_asked_over_tls_and_only_if_they_are_who_they_say() {
    let authority = Authority::new();
    authority.issue("app", &["localhost"], Kind::Ecdsa);
    for alpn in ["http/1.1", "h2"] {
        let hook = Service::new(Speaks::Tls(authority.server("app", &[alpn], false)), |_| async {
            Response::new(whole("{\"status\":\"pass\"}"))
        });
        let url = format!("https://localhost:{}/gate?key=s3cret", hook.address.port());
        let ca = authority.path("ca.pem").display().to_string();
        let (blue, green) = (Backend::blue(), Backend::green());
        let lines = |ca: &str| {
            format!(
                "switch = {{ require = [\"hook\"], verify = 0 }}\nguard.bake = \"0\"\n\
                 gate.hook = {{ webhook = \"{url}\", timeout = \"20s\"{ca} }}\n\
                 [[notify]]\nwebhook = \"{url}\"\non = [\"switch\"]\ntimeout = \"20s\"{}\n",
                ca.replace(", ", "\n")
            )
        };
        let trusting = Setup::new()
            .colors(&blue, &green, &lines(&format!(", ca = {ca:?}")))
            .start();
        let (verdict, detail) = gate(&trusting.switch("green").json);
        assert_eq!(verdict, "pass", "{detail}");
        assert!(
            detail.contains("https://localhost") && !detail.contains("s3cret"),
            "{detail}"
        );
        until("the notification has come too", || hook.requests() == 2);
        // Somebody else's certificate: not asked, and said why.
        let other = Authority::named("another CA");
        let ca = format!(", ca = {:?}", other.path("ca.pem").display().to_string());
        let doubting = Setup::new().colors(&blue, &green, &lines(&ca)).start();
        let shown = doubting
            .post("switch", json!({ "to": "green", "dry_run": true }))
            .json;
        let (verdict, detail) = gate(&shown);
        assert!(
            verdict == "insufficient data" && detail.contains("certificate refused"),
            "{alpn}: {detail}"
        );
        assert_eq!(hook.requests(), 2, "{alpn}");
    }
}

#[test]
fn a_mirrors_verdict_is_a_gate() {
    let green = Arc::<AtomicUsize>::default();
    let told = Arc::clone(&green);
    let green_app = Backend::handler(move |request| match (request.target(), told.load(SeqCst)) {
        (HEALTH, _) | (_, 1) => ok("green"),
        _ => b"HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n".to_vec(),
    });
    let blue = Backend::blue();
    let lines = "mirror.percent = 100\nswitch = { require = [\"alike\"], verify = 0 }\n\
        gate.alike = { expr = 'mirror.difference_rate < 0.6 && mirror.failed == 0', min_requests = 20, timeout = \"300ms\" }\n";
    let proxy = Setup::new().colors(&blue, &green_app, lines).start();
    let dry_run = || {
        gate(
            &proxy
                .post("switch", json!({ "to": "green", "dry_run": true }))
                .json,
        )
    };
    let (verdict, detail) = dry_run();
    assert!(
        verdict == "insufficient data" && detail.contains("mirror has 0 of 20 requests"),
        "{detail}"
    );
    // Copies are compared in their own time: ask until so many have been.
    until("another answer is seen", || {
        proxy.fetch("/");
        dry_run().0 == "fail"
    });
    let (_, detail) = dry_run();
    assert!(detail.contains("mirror.difference_rate 1 (n "), "{detail}");
    green.store(1, SeqCst);
    until("most are alike", || {
        proxy.fetch("/");
        dry_run().0 == "pass"
    });
    proxy.switch("green");
}

// --- the warm-up -------------------------------------------------------------------------------------------------

#[test]
fn a_color_is_warmed_before_its_first_share_and_nobody_else() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines =
        "switch.verify = 0\nwarmup = { requests = 60, paths = [\"/\", \"/search?q=a\"], parallel = 3 }\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let shown = proxy
        .post("switch", json!({ "to": "green", "dry_run": true }))
        .done();
    assert_eq!(
        green.requests().len(),
        0,
        "a dry run sends nothing: {}",
        shown.text
    );
    let desk = Desk::at(&proxy, &blue, &green, "");
    desk.cutover(&["switch", "green"])
        .expect(0)
        .says(&["warmup", "warmed"]);
    let asked = green.requests();
    assert!((40..=60).contains(&asked.len()), "{}", asked.len());
    for path in ["/", "/search?q=a"] {
        assert!(
            asked.iter().filter(|request| request.target() == path).count() >= 20,
            "{path}"
        );
    }
    assert!(
        asked
            .iter()
            .all(|request| request.field("x-cutover-warmup") == Some("1"))
    );
    assert_eq!(blue.requests().len(), 0, "the active color is sent none of it");
    // A share of its own: the other color is warmed for it, once.
    proxy.post("weight", json!({ "blue": 10 })).done();
    let warmed = blue.requests().len();
    assert!((40..=60).contains(&warmed), "{warmed}");
    proxy.post("weight", json!({ "blue": 20 })).done();
    assert_eq!(blue.requests().len(), warmed, "it has traffic already");
}

#[test]
fn paths_that_clients_asked_for_are_what_a_color_is_warmed_with() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = "switch.verify = 0\nguard.bake = \"0\"\nwarmup.requests = 20\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let (verdict, detail) = gate(&proxy.switch("green").json);
    assert!(
        verdict == "pass" && detail.contains("no client has asked"),
        "{detail}"
    );
    proxy.post("rollback", json!({})).done();
    let mut client = proxy.client();
    client.get("/a?b=c");
    client.post("/order", "x");
    client.ask("GET /own HTTP/1.1\r\nHost: shop.test\r\nCookie: session=1\r\n\r\n");
    client.get("/d");
    let before = green.requests().len();
    let (verdict, detail) = gate(&proxy.switch("green").json);
    assert!(verdict == "pass" && detail.contains("warmed 20/20"), "{detail}");
    let mut targets: Vec<String> = green.requests()[before..]
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets, ["/a?b=c", "/d"]);
}

#[test]
fn a_color_that_cannot_be_warmed_gets_nothing() {
    let manners = Manners::default();
    let (blue, green) = (Backend::blue(), manners.backend("green"));
    manners.errors.store(8, SeqCst);
    let lines = "warmup = { requests = 40, paths = [\"/\"] }\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let refused = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(refused.json["code"], "gate_refused", "{}", refused.text);
    let (verdict, detail) = gate(&refused.json);
    assert!(
        verdict == "fail" && detail.contains("warmed 8/40") && detail.contains("500"),
        "{detail}"
    );
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 1));
    // Its time is over: what is done by then is done, and no more is asked for.
    manners.errors.store(0, SeqCst);
    manners.slow.store(30, SeqCst);
    let lines =
        "switch.verify = 0\nwarmup = { requests = 100000, paths = [\"/\"], parallel = 1, max = \"300ms\" }\n";
    let quick = Setup::new().colors(&blue, &green, lines).start();
    let begun = std::time::Instant::now();
    let (verdict, detail) = gate(&quick.switch("green").json);
    assert_eq!(verdict, "pass", "{detail}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{detail}");
}

// --- the standby -------------------------------------------------------------------------------------------------

#[test]
fn it_is_said_once_when_a_standby_has_been_kept_for_long_enough() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = "standby_ttl = \"1s\"\nguard.bake = \"0\"\n";
    let mut proxy = Setup::new().colors(&blue, &green, lines).start();
    let said = |proxy: &Proxy| {
        let history = proxy.get("/v1/history").done().json;
        let entries = history["entries"].as_array().unwrap().clone();
        entries
            .into_iter()
            .filter(|entry| entry["verb"] == "standby over")
            .collect::<Vec<_>>()
    };
    assert!(proxy.app()["standby_until"].is_null(), "no switch has left it");
    proxy.switch("green");
    assert!(proxy.app()["standby_until"].is_string());
    until("it is said", || said(&proxy).len() == 1);
    let entry = said(&proxy).remove(0);
    assert!(
        entry["reason"]
            .as_str()
            .unwrap()
            .starts_with("blue has been the standby since"),
        "{entry}"
    );
    let desk = Desk::at(&proxy, &blue, &green, "");
    desk.cutover(&["status"])
        .expect(0)
        .says(&["standby_ttl", "cutover retire"]);
    // Once, also after a restart; and it is still warm.
    proxy.restart();
    // What must not happen: a slow machine can only hide it.
    let restarted = std::time::Instant::now();
    until("two looks at it", || {
        restarted.elapsed() > Duration::from_millis(2_500)
    });
    assert_eq!(said(&proxy).len(), 1);
    proxy.post("rollback", json!({})).done();
    assert_eq!(proxy.says(), "blue");
    until("of the other one too", || said(&proxy).len() == 2);
}

// --- the way back ------------------------------------------------------------------------------------------------

#[test]
fn a_rollback_goes_where_it_is_told_if_that_is_warm() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "guard.bake = \"0\"\n").start();
    let desk = Desk::at(&proxy, &blue, &green, "");
    announce(&proxy, "blue", "v1");
    announce(&proxy, "green", "v2");
    let blues = proxy.generation();
    proxy.switch("green");
    let greens = proxy.generation();
    desk.cutover(&["rollback", "--to", &greens.to_string()])
        .expect(0)
        .says(&["already"]);
    desk.cutover(&["rollback", "--to", "v2"]).expect(0);
    assert_eq!(proxy.generation(), greens, "it is so already");
    desk.cutover(&["rollback", "--to", "v0"])
        .expect(10)
        .says(&["v0", "blue@v1"]);
    desk.cutover(&["rollback", "--to", "4711"])
        .expect(2)
        .says(&["there was no generation 4711"]);
    desk.cutover(&["rollback", "--to", &format!("g{blues}"), "--dry-run"])
        .expect(0);
    assert_eq!(proxy.says(), "green");
    desk.cutover(&["rollback", "--to", &format!("g{blues}")])
        .expect(0);
    assert_eq!(proxy.says(), "blue");
    // What was left is no place on the way back any more.
    desk.cutover(&["rollback", "--to", "v2"]).expect(10);
    proxy.switch("green");
    proxy.post("rollback", json!({ "to": "v1" })).done();
    assert_eq!(proxy.says(), "blue");
    proxy.switch("green");
    // Redeployed since: not what it was.
    announce(&proxy, "blue", "v3");
    desk.cutover(&["rollback", "--to", "v1"])
        .expect(10)
        .says(&["redeployed"]);
    desk.cutover(&["rollback", "--to", "v1", "--start"]).expect(2);
    assert_eq!(proxy.says(), "green");
    let nonsense = proxy.post("rollback", json!({ "to": { "generation": 1 } }));
    assert_eq!(nonsense.status, 400, "{}", nonsense.text);
}
