//! Which app, which service: hosts and paths.

use crate::harness::{Backend, Proxy, Setup, ok};

fn ask(proxy: &Proxy, host: &str, path: &str) -> String {
    let answer = proxy
        .client()
        .ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    if answer.status() == 200 {
        answer.text()
    } else {
        answer.status().to_string()
    }
}

#[test]
fn hosts_and_paths_find_their_service() {
    let tell =
        |name: &'static str| Backend::handler(move |request| ok(&format!("{name} {}", request.target())));
    let (shop, api, exact, blog, wild) = (
        tell("shop"),
        tell("api"),
        tell("exact"),
        tell("blog"),
        tell("wild"),
    );
    let proxy = Setup::new()
        .toml(&format!(
            r#"
            [app.shop]
            initial = "blue"
            hosts = ["shop.test"]
            [app.shop.service.web]
            blue = ["{}"]
            [app.shop.service.api]
            path_prefix = "/api"
            strip_prefix = true
            blue = ["{}"]
            [app.shop.service.exact]
            path = "/api/exact"
            blue = ["{}"]
            [app.blog]
            initial = "blue"
            hosts = ["blog.test", "*.blog.test"]
            blue = ["{}"]
            [app.wild]
            initial = "blue"
            hosts = ["*.test"]
            [app.wild.service.only]
            path_prefix = "/only"
            blue = ["{}"]
            "#,
            shop.address(),
            api.address(),
            exact.address(),
            blog.address(),
            wild.address()
        ))
        .start();
    for (host, path, expected) in [
        ("shop.test", "/", "shop /"),
        ("SHOP.test.", "/x?y=/api", "shop /x?y=/api"),
        ("shop.test:8080", "/apix", "shop /apix"),
        ("shop.test", "/api", "api /"),
        ("shop.test", "/api?q", "api /?q"),
        ("shop.test", "/api/", "api /"),
        ("shop.test", "/api/a//b/../c?q=1", "api /a//b/../c?q=1"),
        ("shop.test", "/api/exact", "exact /api/exact"),
        ("shop.test", "/api/exact/", "api /exact/"),
        ("shop.test", "/API", "shop /API"),
        ("blog.test", "/", "blog /"),
        ("a.b.blog.test", "/", "blog /"),
        ("other.test", "/only/x", "wild /only/x"),
        ("other.test", "/", "404"),
        ("test", "/only", "404"),
        ("elsewhere", "/", "404"),
        ("127.0.0.1", "/", "404"),
    ] {
        assert_eq!(ask(&proxy, host, path), expected, "{host} {path}");
    }
    let mut client = proxy.client();
    let answer = client.ask("GET http://shop.test/api/x HTTP/1.1\r\nHost: blog.test\r\n\r\n");
    assert_eq!(answer.text(), "api /x");
    assert_eq!(
        client.ask("GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n").status(),
        404
    );
    assert_eq!(
        client.ask("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").text(),
        "shop /",
        "it goes on after a 404"
    );
}

#[test]
fn a_name_is_resolved() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"localhost:{}\"]",
            blue.port()
        ))
        .start();
    assert_eq!(proxy.says(), "blue");
    let endpoint = &proxy.app()["colors"]["blue"]["services"][0]["endpoints"][0];
    assert_eq!(endpoint["address"], format!("localhost:{}", blue.port()));
}

#[test]
fn a_name_that_does_not_resolve_is_503_and_no_reason_not_to_start() {
    let green = Backend::green();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"no-such-name.invalid:80\"]\ngreen = [\"{}\"]",
            green.address()
        ))
        .start_unready();
    crate::harness::until("503", || proxy.fetch("/").status() == 503);
    proxy.switch("green");
    assert_eq!(proxy.says(), "green");
}

#[test]
fn several_endpoints_share_the_work() {
    let (one, two, three) = (Backend::says("1"), Backend::says("2"), Backend::says("3"));
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{}\", \"{}\", \"{}\"]",
            one.address(),
            two.address(),
            three.address()
        ))
        .start();
    let mut client = proxy.client();
    for _ in 0..30 {
        client.get("/");
    }
    for backend in [&one, &two, &three] {
        assert!(backend.requests().len() >= 5, "{}", backend.requests().len());
    }
}

#[test]
fn an_empty_color_is_503() {
    let green = Backend::green();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = []\ngreen = [\"{}\"]",
            green.address()
        ))
        .start_unready();
    crate::harness::until("503 with a reason", || {
        let answer = proxy.fetch("/");
        answer.status() == 503 && answer.text().contains("no healthy endpoint")
    });
    assert_eq!(proxy.get("/readyz").status, 503);
}

#[test]
fn maintenance_says_why() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let on = serde_json::json!({ "on": true, "message": "back at noon" });
    proxy.post("maintenance", on).done();
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(
            (answer.status(), answer.field("retry-after").is_some()),
            (503, true)
        );
        assert!(answer.text().contains("back at noon"), "{}", answer.text());
    }
    proxy
        .post("maintenance", serde_json::json!({ "on": false }))
        .done();
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(blue.requests().len(), 1);
}
