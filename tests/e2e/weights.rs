//! A weight is exact to one point over 10,000 requests.

use std::time::Duration;

use crate::backend::Backend;
use crate::figures::{alone, say};
use crate::judge::Color;
use crate::load::{Load, Plan};
use crate::random::Random;
use crate::server::{Site, simple};

#[test]
fn a_weight_is_exact_to_one_point_over_ten_thousand_requests() {
    let _machine = alone();
    let mut random = Random::seeded("weights");
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    for percent in [10, 33, 50, 1] {
        site.cli(&["weight", &format!("green={percent}")]).expect(0);
        let plan = Plan {
            body_max: 64,
            ..Plan::to(site.address(), 16)
        };
        let load = Load::start(&plan, &mut random);
        load.flow(10_000);
        let records = load.stop();
        let total = records.len();
        let failed: Vec<_> = records
            .iter()
            .filter_map(|record| record.outcome.as_ref().err())
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
        let on_green = records
            .iter()
            .filter(|record| record.outcome == Ok(Color::Green))
            .count();
        let share = 100.0 * on_green as f64 / total as f64;
        say(&format!(
            "weight green={percent}: {share:.2} % of {total} requests"
        ));
        assert!(
            (share - f64::from(percent)).abs() <= 1.0,
            "{share} % of {total} requests, wanted {percent} %"
        );
    }
    // Weight 0 ends it, weight 100 is a switch.
    site.cli(&["weight", "green=0"]).expect(0);
    assert_eq!(site.admin().state().0, Color::Blue);
    let mut client = site.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").expect("an answer").json()["color"], "blue");
    }
    site.cli(&["weight", "green=100"]).expect(0);
    assert_eq!(site.admin().state().0, Color::Green);
    for _ in 0..200 {
        assert_eq!(client.get("/").expect("an answer").json()["color"], "green");
    }
    site.cli(&["weight", "green=101"]).expect(2);
    server.stop();
}

#[test]
fn a_candidate_with_nothing_healthy_gets_nothing() {
    let _machine = alone();
    let blue = Backend::says("blue");
    let green = Backend::says_unless("green", |seen| {
        // Passes until the test says otherwise, then fails its probes.
        (seen.path() == "/healthz" && SICK.load(std::sync::atomic::Ordering::Relaxed))
            .then(|| b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec())
    });
    static SICK: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let health = "[app.web.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nfall = 2\n";
    let site = Site::new(&simple(
        &blue.address.to_string(),
        &green.address.to_string(),
        health,
    ));
    let server = site.run();
    site.cli(&["weight", "green=50"]).expect(0);
    let mut client = site.client();
    let mut colors = |count: usize| -> usize {
        (0..count)
            .filter(|_| client.get("/").expect("an answer").json()["color"] == "green")
            .count()
    };
    assert!(colors(100) > 40, "green has its half while it is healthy");
    SICK.store(true, std::sync::atomic::Ordering::Relaxed);
    crate::server::eventually("the sick candidate gets nothing", Duration::from_secs(10), || {
        (colors(50) == 0).then_some(())
    });
    SICK.store(false, std::sync::atomic::Ordering::Relaxed);
    crate::server::eventually(
        "the cured candidate has its half again",
        Duration::from_secs(10),
        || (colors(100) > 40).then_some(()),
    );
    server.stop();
}
