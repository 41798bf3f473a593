//! A real browser: Chromium loads a page over HTTP/2 and keeps a WebSocket and an event stream open across switches.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::apps::{App, Kind, tool};
use crate::figures::{alone, say, size};
use crate::judge::Color;
use crate::ports;
use crate::server::{Site, simple};

#[test]
fn chromium_keeps_its_streams_over_http2_across_switches() {
    let _machine = alone();
    let apps = App::start_all([(Kind::Crowd, Color::Blue), (Kind::Crowd, Color::Green)]);
    let folder = tempfile::tempdir().expect("a folder");
    let (pem, key) = (folder.path().join("site.pem"), folder.path().join("site.key"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&pem, made.cert.pem()).expect("write the certificate");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("write the key");
    let port = ports::free();
    let [blue, green] = apps.each_ref().map(App::address);
    let site = Site::new(&simple(
        &blue,
        &green,
        &format!(
            "health = {{ path = \"/healthz\", timeout = \"10s\" }}\ndrain = {{ streams = {{ policy = \"keep\" }} }}\n\n\
             [[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [listener.tls]\ncertificates = [{{ cert = {pem:?}, key = {key:?} }}]\n"
        ),
    ));
    let server = site.run();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/browser.py");
    let mut browser = Command::new(tool("python"))
        .args([script, &format!("https://localhost:{port}/page")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the browser's driver starts");
    let mut lines = BufReader::new(browser.stdout.take().expect("stdout")).lines();
    let mut line = move || -> Value {
        let line = lines.next().expect("the driver says something").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(line(), json!({ "open": true }));
    let (mut admin, mut to, switches) = (site.admin(), Color::Green, size(5, 50));
    for _ in 0..switches {
        assert_eq!(admin.switch(to).expect("an answer").0, 200, "{}", server.stderr());
        to = to.other();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(browser.stdin.take());
    let seen = line();
    assert!(browser.wait().expect("the driver ends").success());
    assert_eq!(seen["wrong"], json!([]), "{seen}");
    assert_eq!(seen["protocols"], json!(["h2"]), "{seen}");
    // Streams keep what they chose; what is asked anew goes where the switch says.
    assert_eq!(seen["colors"]["socket"], json!(["blue"]), "{seen}");
    assert_eq!(seen["colors"]["events"], json!(["blue"]), "{seen}");
    assert_eq!(seen["colors"]["fetch"], json!(["blue", "green"]), "{seen}");
    say(&format!(
        "Chromium over h2, {switches} switches: {} WebSocket messages, {} events, {} fetches, 0 broken",
        seen["messages"], seen["events"], seen["fetches"]
    ));
    server.stop();
}
