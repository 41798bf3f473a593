//! What a condition says of a request, natively and by the interpreter: the same.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::config::{self, Rule};

fn rule(when: &str) -> Rule {
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"127.0.0.1:1\"]\ngreen = [\"127.0.0.1:2\"]\n\
         [[app.web.rule]]\nwhen = '''{when}'''\ncolor = \"green\"\n"
    );
    let config = config::parse(&text, "test", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
    config.apps["web"].traffic.rules[0].clone()
}

/// What a request was: target, fields, address.
struct Was {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Was {
    fn new(target: &str, fields: &[(&str, &str)]) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        Self {
            method: Method::POST,
            uri: target.parse().unwrap(),
            headers,
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            host: "shop.example.com",
            client: "192.0.2.7".parse().ok(),
            tls: true,
            server_name: Some("shop.example.com"),
            ..Asked::plain(&self.uri, &self.headers)
        }
    }
}

/// The answer, asked for natively (if it goes) and of the interpreter.
fn both(rule: &Rule, was: &Was) -> Result<bool, Lack> {
    let asked = was.asked();
    let slow = interpreted(&rule.when, &asked);
    if let Some(test) = &rule.native {
        let fast = native(test, &asked);
        let alike = match (&fast, &slow) {
            (Err(_), Err(_)) => true,
            (fast, slow) => fast == slow,
        };
        assert!(
            alike,
            "{}: native {fast:?}, interpreted {slow:?}",
            rule.when.source()
        );
    }
    slow
}

fn shop() -> Was {
    Was::new(
        "/api/v1/things?debug=1&name=a%20b+c&empty&%64up=x&dup=y",
        &[
            ("x-beta", "1"),
            ("x-beta", "2"),
            ("cookie", "a=1; tier=gold; a=2"),
        ],
    )
}

#[test]
fn conditions_see_every_part_of_a_request() {
    let was = shop();
    for (when, holds) in [
        (r#"request.method == "POST""#, true),
        (
            r#"request.method != "GET" && request.host == "shop.example.com""#,
            true,
        ),
        (
            r#"request.path.startsWith("/api") && !request.path.endsWith("/")"#,
            true,
        ),
        (r#"request.path in ["/a", "/b"]"#, false),
        (r#"request.path.contains("v1/") || false"#, true),
        (r#"request.scheme == "https""#, true),
        (r#"request.headers["x-beta"] == "1""#, true),
        (r#"request.headers["x-beta"] in ["0", "1"]"#, true),
        (
            r#""x-beta" in request.headers && !("x-alpha" in request.headers)"#,
            true,
        ),
        (
            r#"has(request.cookies.tier) && request.cookies.tier == "gold""#,
            true,
        ),
        (r#"request.cookies["a"] == "1""#, true),
        (r#"request.query["debug"] == "1""#, true),
        (
            r#"request.query["name"] == "a b c" && request.query["empty"] == """#,
            true,
        ),
        (r#"request.query["dup"] == "x""#, true),
        (r#"client.address == "192.0.2.7""#, true),
        (
            r#"tls.used && tls.server_name == "shop.example.com" && tls.subject == """#,
            true,
        ),
        ("true", true),
    ] {
        let rule = rule(when);
        assert!(rule.native.is_some(), "{when} needs no interpreter");
        assert_eq!(both(&rule, &was), Ok(holds), "{when}");
    }
    for when in [
        "size(request.path) > 10",
        r#"request.path + "x" == "/api/v1/thingsx""#,
        r#"int(request.query["debug"]) >= 1"#,
    ] {
        let rule = rule(when);
        assert!(rule.native.is_none(), "{when}");
        assert_eq!(both(&rule, &was), Ok(true), "{when}");
    }
    // The interpreter is not asked for these.
    for (when, expected) in [
        (r#"request.path.matches("^/api/v[0-9]+/")"#, true),
        (r#"client.address.inNetwork("192.0.2.0/24")"#, true),
        (r#"client.address.inNetwork("198.51.100.0/24")"#, false),
    ] {
        assert_eq!(holds(&rule(when), &was.asked()), Ok(expected), "{when}");
    }
}

#[test]
fn what_a_request_lacks_is_no_answer_unless_the_rest_decides() {
    let was = shop();
    for (when, expected) in [
        (r#"request.headers["x-none"] == "1""#, Err(Lack::Missing)),
        (r#"request.headers["x-none"] != "1""#, Err(Lack::Missing)),
        (r#"request.headers["x-none"] == "1" || tls.used"#, Ok(true)),
        (r#"request.headers["x-none"] == "1" && !tls.used"#, Ok(false)),
        (
            r#"request.headers["x-none"] == "1" && tls.used"#,
            Err(Lack::Missing),
        ),
        (r#"!(request.query["none"] == "1")"#, Err(Lack::Missing)),
        (r#"request.cookies["none"].startsWith("x")"#, Err(Lack::Missing)),
    ] {
        assert_eq!(both(&rule(when), &was), expected, "{when}");
    }
}

#[test]
fn what_is_no_text_is_odd_and_arithmetic_that_fails_too() {
    let mut was = shop();
    was.headers
        .insert("x-beta", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    was.headers
        .insert("cookie", HeaderValue::from_bytes(b"tier=\xff").unwrap());
    for when in [
        r#"request.headers["x-beta"] == "1""#,
        r#"request.cookies["tier"] == "1""#,
    ] {
        assert!(
            matches!(holds(&rule(when), &was.asked()), Err(Lack::Odd(_))),
            "{when}"
        );
    }
    for when in [
        "10 / (size(request.path) - size(request.path)) > 1",
        r#"int(request.host) > 1"#,
        "9223372036854775807 + size(request.path) > 1",
    ] {
        assert!(
            matches!(holds(&rule(when), &was.asked()), Err(Lack::Odd(_))),
            "{when}"
        );
    }
}

proptest! {
    /// Whatever comes in, both ways agree, and neither panics.
    #[test]
    fn the_native_answer_is_the_interpreters(
        path in "/[a-c/%+]{0,6}",
        query in "[a-c=&%+0-9]{0,12}",
        header in proptest::option::of("[ -~]{0,6}"),
        cookie in "[a-c=; ]{0,12}",
    ) {
        static RULES: std::sync::LazyLock<Vec<Rule>> = std::sync::LazyLock::new(|| {
            [
                r#"request.path.startsWith("/a") && request.headers["x-h"] == "a""#,
                r#"request.query["a"] == "b" || request.cookies["b"] == "c""#,
                r#"!("a" in request.cookies) || request.path.contains("%")"#,
                r#"has(request.query.c) && !(request.query["a"] in ["", "a", "b"])"#,
                r#"request.headers["x-h"].endsWith("z") || request.path == "/" || "b" in request.query"#,
            ]
            .map(rule)
            .to_vec()
        });
        let target = format!("{path}?{query}");
        if let Ok(uri) = target.parse::<Uri>() {
            let mut was = Was::new("/", &[("cookie", &cookie)]);
            was.uri = uri;
            if let Some(header) = header {
                was.headers.insert("x-h", HeaderValue::from_str(&header).unwrap());
            }
            for rule in &*RULES {
                assert!(rule.native.is_some());
                let _ = both(rule, &was);
            }
        }
    }
}
