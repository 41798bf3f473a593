//! Who a client is while two colors share the traffic, and that it keeps its color.

use serde_json::json;

use crate::harness::{Backend, Message, Proxy, Setup, until};

const CLIENTS: usize = 120;

fn two(lines: &str) -> (Backend, Backend, Proxy) {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    (blue, green, proxy)
}

fn weigh(proxy: &Proxy, green: u8) {
    proxy.post("weight", json!({ "green": green })).done();
}

/// One request with these fields, lines and all, over a connection that is kept.
fn ask(wire: &mut crate::harness::Wire, fields: &str) -> Message {
    wire.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

/// The cookie that an answer sets, as the client sends it back.
fn given(answer: &Message) -> Option<String> {
    let cookie = answer.field("set-cookie")?;
    let (pair, _) = cookie.split_once(';').expect("attributes");
    Some(format!("Cookie: other=1; {pair}\r\n"))
}

/// Which of these clients are on green.
fn on_green(proxy: &Proxy, clients: &[String]) -> Vec<bool> {
    let mut wire = proxy.client();
    let mut color = |fields: &String| {
        let answer = ask(&mut wire, fields);
        assert_eq!(answer.field("set-cookie"), None, "it is known already");
        answer.text() == "green"
    };
    clients.iter().map(&mut color).collect()
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

/// Raising the weight moves clients forward only, lowering it back only; asked twice, nobody moves at all.
fn monotone(proxy: &Proxy, clients: &[String]) {
    let mut before = on_green(proxy, clients);
    for percent in [10, 30, 31, 60, 99, 60, 30, 10, 1] {
        let was = proxy.app()["weight"].as_u64().unwrap();
        weigh(proxy, percent);
        let after = on_green(proxy, clients);
        assert_eq!(
            after,
            on_green(proxy, clients),
            "at {percent} somebody moved by itself"
        );
        for (client, (before, after)) in before.iter().zip(&after).enumerate() {
            let moved_forward = u64::from(percent) >= was;
            assert!(
                if moved_forward {
                    *after || !before
                } else {
                    *before || !after
                },
                "{was} → {percent} moved client {client} from {before} to {after}"
            );
        }
        before = after;
    }
}

#[test]
fn a_new_client_gets_a_cookie_only_while_there_is_something_to_choose() {
    let (_blue, _green, proxy) = two("");
    assert_eq!(proxy.fetch("/").field("set-cookie"), None);
    weigh(&proxy, 50);
    let answer = proxy.fetch("/");
    let cookie = answer.field("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("cutover_id="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    assert!(!cookie.contains("blue") && !cookie.contains("green"), "{cookie}");
    proxy.switch("green");
    assert_eq!(proxy.fetch("/").field("set-cookie"), None);
}

#[test]
fn new_clients_are_shared_out_evenly_and_keep_their_side() {
    let (_blue, _green, mut proxy) = two("");
    weigh(&proxy, 20);
    let mut wire = proxy.client();
    let mut clients = Vec::new();
    let mut green = 0;
    for _ in 0..CLIENTS {
        let answer = ask(&mut wire, "");
        green += usize::from(answer.text() == "green");
        clients.push(given(&answer).expect("a cookie"));
    }
    drop(wire);
    assert!((22..=26).contains(&green), "{green} of {CLIENTS} at 20 %");
    assert_eq!(
        count(&on_green(&proxy, &clients)),
        green,
        "they come back to the color they had"
    );
    monotone(&proxy, &clients);

    // The salt is stored: a restart moves nobody.
    weigh(&proxy, 40);
    let before = on_green(&proxy, &clients);
    proxy.restart();
    assert_eq!(on_green(&proxy, &clients), before);

    // The next rollout has a salt of its own: not the same clients go first.
    weigh(&proxy, 0);
    weigh(&proxy, 40);
    let after = on_green(&proxy, &clients);
    assert_ne!(after, before);
    assert!(
        (24..=72).contains(&count(&after)),
        "{} of {CLIENTS} at 40 %",
        count(&after)
    );
}

#[test]
fn a_header_or_a_cookie_of_the_apps_own_is_a_key() {
    for (key, field) in [
        ("header:x-user", "X-User: ann-"),
        ("cookie:session", "Cookie: a=1; session=ann-"),
    ] {
        let (_blue, _green, proxy) = two(&format!("affinity.key = \"{key}\""));
        weigh(&proxy, 5);
        let clients: Vec<_> = (0..CLIENTS).map(|n| format!("{field}{n}\r\n")).collect();
        monotone(&proxy, &clients);
        weigh(&proxy, 50);
        let half = count(&on_green(&proxy, &clients));
        assert!((34..=86).contains(&half), "{key}: {half} of {CLIENTS} at 50 %");
        // Without the key each request is drawn by itself, and nothing is set.
        let answers: Vec<_> = (0..40).map(|_| proxy.fetch("/")).collect();
        assert!(answers.iter().all(|answer| answer.field("set-cookie").is_none()));
        let green = answers.iter().filter(|answer| answer.text() == "green").count();
        assert!((15..=25).contains(&green), "{green} of 40 at 50 %");
    }
}

#[test]
fn an_address_is_a_key_as_trusted_proxies_give_it() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .colors(&blue, &green, "affinity.key = \"ip\"")
        .start();
    weigh(&proxy, 5);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| format!("X-Forwarded-For: 203.0.113.{n}, 127.0.0.9\r\n"))
        .collect();
    monotone(&proxy, &clients);
    // From anybody else the field is no address: all of these are one client.
    let (_blue, _green, proxy) = two("affinity.key = \"ip\"");
    weigh(&proxy, 50);
    let one = count(&on_green(&proxy, &clients));
    assert!(one == 0 || one == CLIENTS, "{one} of {CLIENTS}");
}

#[test]
fn the_cookie_is_secure_where_the_clients_side_is() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .colors(&blue, &green, "")
        .start();
    weigh(&proxy, 50);
    let mut wire = proxy.client();
    let https = ask(&mut wire, "X-Forwarded-Proto: https\r\n");
    assert!(
        https.field("set-cookie").unwrap().ends_with("; Secure"),
        "{https:?}"
    );
    let http = ask(&mut wire, "X-Forwarded-Proto: http\r\n");
    assert!(!http.field("set-cookie").unwrap().contains("Secure"), "{http:?}");
    let (_blue, _green, stranger) = two("");
    weigh(&stranger, 50);
    let claimed = ask(&mut stranger.client(), "X-Forwarded-Proto: https\r\n");
    assert!(
        !claimed.field("set-cookie").unwrap().contains("Secure"),
        "{claimed:?}"
    );
}

#[test]
fn nobody_is_known_where_nobody_wants_to() {
    let (_blue, _green, proxy) = two("affinity.key = \"none\"");
    weigh(&proxy, 50);
    let mut wire = proxy.client();
    let answers: Vec<_> = (0..40)
        .map(|_| ask(&mut wire, "Cookie: cutover_id=0123456789abcdef\r\n"))
        .collect();
    assert!(answers.iter().all(|answer| answer.field("set-cookie").is_none()));
    let green = answers.iter().filter(|answer| answer.text() == "green").count();
    assert!((19..=21).contains(&green), "{green} of 40 at 50 %");
}

#[test]
fn a_hostile_cookie_is_answered_like_none() {
    let (_blue, _green, proxy) = two("");
    weigh(&proxy, 50);
    let mut wire = proxy.client();
    let long = "x".repeat(30_000);
    for value in [
        "",
        "zz",
        "0123456789ABCDEF",
        "ffffffffffffffffff",
        "../../etc",
        long.as_str(),
    ] {
        let answer = ask(&mut wire, &format!("Cookie: cutover_id={value}\r\n"));
        assert_eq!(answer.status(), 200, "{value:.20}");
        assert!(given(&answer).is_some(), "{value:.20}");
    }
    // The app's own cookies go beside ours.
    let both =
        Backend::handler(|_| b"HTTP/1.1 200 OK\r\nset-cookie: app=1\r\ncontent-length: 0\r\n\r\n".to_vec());
    let green = Backend::green();
    let proxy = Proxy::of(&both, &green);
    weigh(&proxy, 1);
    let answer = proxy.fetch("/");
    assert_eq!(answer.all("set-cookie").len(), 2, "{answer:?}");
}

#[test]
fn a_client_whose_candidate_is_sick_goes_to_the_active_color_and_back_again() {
    let (_blue, green, proxy) = two("health.rise = 1\nhealth.fall = 1");
    weigh(&proxy, 50);
    let mut wire = proxy.client();
    let client = loop {
        let answer = ask(&mut wire, "");
        if answer.text() == "green" {
            break given(&answer).unwrap();
        }
    };
    green.stop_and_wait();
    until("green is known to be gone", || {
        proxy.app()["colors"]["green"]["healthy"] == false
    });
    let before = proxy.metric("cutover_spilled_total", &[]);
    for _ in 0..5 {
        let answer = ask(&mut wire, &client);
        assert_eq!((answer.status(), answer.text().as_str()), (200, "blue"));
    }
    assert!(proxy.metric("cutover_spilled_total", &[]) >= before + 5.0);
}

#[test]
fn explain_says_whose_bucket_it_is() {
    let (_blue, _green, proxy) = two("affinity.key = \"header:x-user\"");
    weigh(&proxy, 50);
    let explain = |headers: serde_json::Value| {
        let answer = proxy
            .post("explain", json!({ "url": "/", "headers": headers }))
            .done();
        (answer.json["color"].as_str().unwrap().to_owned(), answer.text)
    };
    let mut wire = proxy.client();
    for n in 0..20 {
        let (color, text) = explain(json!([["x-user", format!("ann-{n}")]]));
        assert!(text.contains("affinity by header:x-user"), "{text}");
        assert_eq!(
            ask(&mut wire, &format!("X-User: ann-{n}\r\n")).text(),
            color,
            "{text}"
        );
    }
    let (_, text) = explain(json!([]));
    assert!(text.contains("no key to know the client by"), "{text}");
    let bad = proxy.post("explain", json!({ "url": "/", "from": "nowhere" }));
    assert_eq!(bad.status, 400, "{}", bad.text);
}
