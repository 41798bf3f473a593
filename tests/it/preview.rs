//! Reaching the standby on purpose: by address, by token, by listener; and nobody else.

use serde_json::json;

use crate::harness::{Backend, Message, Proxy, Setup, Wire, ok};

const ON: &str = "preview.cookie = \"peek\"";

/// Both colors say what they are and which of our fields they have seen.
fn telling(color: &'static str) -> Backend {
    Backend::handler(move |request| {
        let seen: Vec<_> = request
            .fields
            .iter()
            .filter(|(name, _)| name == "x-cutover-color" || name == "cookie")
            .map(|(name, value)| format!(" {name}={value}"))
            .collect();
        ok(&format!("{color}{}", seen.concat()))
    })
}

fn two(server: &str, lines: &str) -> (Backend, Backend, Proxy) {
    let (blue, green) = (telling("blue"), telling("green"));
    let proxy = Setup::new().server(server).colors(&blue, &green, lines).start();
    (blue, green, proxy)
}

fn ask(wire: &mut Wire, fields: &str) -> Message {
    wire.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn said(proxy: &Proxy, fields: &str) -> (u16, String) {
    let answer = ask(&mut proxy.client(), fields);
    (answer.status(), answer.text())
}

fn token(proxy: &Proxy, color: &str, ttl: &str) -> String {
    let made = proxy
        .post("preview-token", json!({ "color": color, "ttl": ttl }))
        .done();
    made.json["token"].as_str().unwrap().to_owned()
}

#[test]
fn an_address_that_may_names_a_color_and_the_app_never_sees_how() {
    let (_blue, _green, proxy) = two("", ON);
    for (value, expected) in [
        ("standby", "green"),
        ("green", "green"),
        ("blue", "blue"),
        (" standby ", "green"),
    ] {
        assert_eq!(
            said(&proxy, &format!("X-Cutover-Color: {value}\r\n")),
            (200, expected.to_owned())
        );
    }
    assert_eq!(
        said(&proxy, "Cookie: a=1; peek=standby; b=2\r\n"),
        (200, "green cookie=a=1; b=2".to_owned())
    );
    assert_eq!(
        said(&proxy, "Cookie: peek=standby\r\n"),
        (200, "green".to_owned())
    );
    assert_eq!(
        said(&proxy, "Cookie: a=1; peeks=standby\r\n"),
        (200, "blue cookie=a=1; peeks=standby".to_owned())
    );
    proxy.switch("green");
    assert_eq!(
        said(&proxy, "X-Cutover-Color: standby\r\n"),
        (200, "blue".to_owned())
    );
}

#[test]
fn an_untrusted_wish_is_403_with_the_reason_and_never_the_other_color() {
    let (blue, green, proxy) = two("", "preview.from = [\"192.0.2.0/24\"]");
    for (fields, reason) in [
        ("X-Cutover-Color: standby\r\n", "preview.from"),
        ("X-Cutover-Color: blue\r\n", "preview.from"),
        (
            "X-Cutover-Color: gren\r\n",
            "neither blue, green or standby nor a preview token",
        ),
        ("X-Cutover-Color:\r\n", "neither"),
        ("X-Cutover-Color: standby.99999999999.00\r\n", "neither"),
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-Cutover-Color: standby\r\n",
            "trusted_proxies",
        ),
        (
            "Forwarded: for=192.0.2.1\r\nX-Cutover-Color: standby\r\n",
            "trusted_proxies",
        ),
    ] {
        let (status, text) = said(&proxy, fields);
        assert_eq!(status, 403, "{fields} {text}");
        assert!(text.contains(reason), "{fields} {text}");
    }
    let long = "x".repeat(30_000);
    assert_eq!(said(&proxy, &format!("X-Cutover-Color: {long}\r\n")).0, 403);
    assert_eq!(blue.requests().len() + green.requests().len(), 0);
    assert_eq!(proxy.metric("cutover_requests_total", &["code=\"403\""]), 8.0);
    assert_eq!(said(&proxy, ""), (200, "blue".to_owned()));
}

#[test]
fn an_address_is_the_one_that_trusted_proxies_give() {
    let (_blue, _green, proxy) = two(
        "trusted_proxies = [\"127.0.0.0/8\"]",
        "preview.from = [\"192.0.2.0/24\"]",
    );
    let wish = "X-Cutover-Color: standby\r\n";
    assert_eq!(
        said(&proxy, &format!("X-Forwarded-For: 192.0.2.7\r\n{wish}")).1,
        "green"
    );
    assert_eq!(
        said(&proxy, &format!("X-Forwarded-For: 198.51.100.1\r\n{wish}")).0,
        403
    );
    assert_eq!(said(&proxy, wish).0, 403);
}

#[test]
fn a_token_lets_anybody_in_for_its_app_and_its_time() {
    let (_blue, _green, mut proxy) = two("", "preview = { from = [], cookie = \"peek\" }");
    let good = token(&proxy, "standby", "1h");
    assert_eq!(
        said(&proxy, &format!("X-Cutover-Color: {good}\r\n")),
        (200, "green".to_owned())
    );
    assert_eq!(
        said(&proxy, &format!("Cookie: peek={good}\r\n")),
        (200, "green".to_owned())
    );
    // The key is kept: a restart forgets no token.
    proxy.restart();
    assert_eq!(said(&proxy, &format!("X-Cutover-Color: {good}\r\n")).1, "green");
    let mut forged = good.clone();
    forged.replace_range(0..7, "blue");
    assert!(
        said(&proxy, &format!("X-Cutover-Color: {forged}\r\n"))
            .1
            .contains("not signed by this server")
    );
    // A second is the unit of a token: one that lives a millisecond is over by the second after.
    let brief = token(&proxy, "standby", "1ms");
    let (status, text) = said(&proxy, &format!("X-Cutover-Color: {brief}\r\n"));
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("expired"), "{text}");
    for (body, why) in [
        (json!({ "ttl": "0s" }), "more than 0"),
        (json!({ "ttl": "31d" }), "30 days"),
        (json!({ "color": "gren" }), "did you mean `green`?"),
        (json!({ "colour": "green" }), "colour"),
    ] {
        let refused = proxy.post("preview-token", body);
        assert!(
            refused.status == 400 && refused.text.contains(why),
            "{}",
            refused.text
        );
    }
}

#[test]
fn without_the_table_there_is_no_preview_and_no_token() {
    let (_blue, _green, proxy) = two("", "");
    assert_eq!(
        said(&proxy, "X-Cutover-Color: green\r\n"),
        (200, "blue x-cutover-color=green".to_owned())
    );
    let refused = proxy.post("preview-token", json!({}));
    assert!(
        refused.status == 400 && refused.text.contains("[app.web.preview]"),
        "{}",
        refused.text
    );
    assert!(!proxy.folder().join("state/preview.key").exists());
}

#[test]
fn the_standby_can_be_seen_during_a_hold_and_in_maintenance_and_the_active_color_cannot() {
    let (_blue, _green, proxy) = two("", ON);
    proxy.post("maintenance", json!({ "on": true })).done();
    assert_eq!(said(&proxy, "X-Cutover-Color: standby\r\n").1, "green");
    assert_eq!(said(&proxy, "X-Cutover-Color: blue\r\n").0, 503);
    proxy.post("maintenance", json!({ "on": false })).done();
    proxy.post("hold", json!({ "max": "20s" })).done();
    assert_eq!(said(&proxy, "X-Cutover-Color: standby\r\n").1, "green");
    proxy.post("release", json!({})).done();
    // A drained color is closed to everybody.
    proxy.post("drain", json!({ "color": "green" })).done();
    assert_eq!(said(&proxy, "X-Cutover-Color: standby\r\n").0, 503);
}

#[test]
fn a_listener_is_for_one_color() {
    let (blue, green) = (telling("blue"), telling("green"));
    let listener = |line: &str| format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{line}\n");
    let tables = [
        listener("color = \"standby\""),
        listener("color = \"blue\""),
        listener(""),
    ];
    let proxy = Setup::new()
        .listeners(&tables.concat())
        .colors(&blue, &green, "")
        .start();
    let says = |at| Wire::tcp(proxy.tcp(at)).get("/").text();
    assert_eq!([says(0), says(1), says(2)], ["green", "blue", "blue"]);
    // The proof of a switch goes through the first of them, and is not led astray.
    assert_eq!(proxy.switch("green").json["verify"]["result"], "verified");
    assert_eq!([says(0), says(1), says(2)], ["blue", "blue", "green"]);
}

#[test]
fn explain_says_why_a_preview_is_refused() {
    let (_blue, _green, proxy) = two("", "preview.from = [\"192.0.2.0/24\"]");
    let explain = |from: &str| {
        let wish = json!({ "url": "/", "headers": [["X-Cutover-Color", "standby"]], "from": from });
        proxy.post("explain", wish).done().json
    };
    let fine = explain("192.0.2.9");
    assert_eq!(fine["color"], "green", "{fine}");
    let refused = explain("198.51.100.1");
    assert_eq!(refused["status"], 403, "{refused}");
    assert!(refused["steps"].to_string().contains("preview.from"), "{refused}");
}
