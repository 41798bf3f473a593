//! The prober's tasks: what they tell, what they keep, and when they end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::super::{EndpointKey, Target};
use super::test_app::{App, Does, http, over_http, says, settings};
use super::*;
use crate::config::{Address, EndpointAddress, HttpProbe, Probe};
use crate::rollout::Color;

/// A guard against hanging, not a measure.
const PATIENT: Duration = Duration::from_secs(30);

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Endpoint::new(EndpointKey {
        app: "shop".into(),
        service: "web".into(),
        color: Color::Blue,
        address: EndpointAddress::plain(Address::Ip(address)),
        target: Target::Tcp(address),
        tls: None,
        preamble: None,
    })
}

fn rise_fall(rise: u32, fall: u32) -> Arc<config::Health> {
    Arc::new(config::Health {
        rise,
        fall,
        ..over_http(http())
    })
}

async fn next(changes: &mut mpsc::Receiver<HealthChange>) -> HealthChange {
    let change = tokio::time::timeout(PATIENT, changes.recv()).await;
    change.expect("a change in time").expect("the prober is alive")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENT, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn each_change_of_health_is_told_once() {
    let app = App::saying("200 OK", "").await;
    let endpoint = endpoint(app.address);
    let (sender, mut changes) = mpsc::channel(8);
    let mut prober = Prober::new(sender);
    prober.reconcile(vec![(Arc::clone(&endpoint), rise_fall(2, 3))]);

    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Unknown, Health::Healthy));
    assert!(Arc::ptr_eq(&change.endpoint, &endpoint));
    assert_eq!(endpoint.health(), Health::Healthy);

    *app.does.lock().unwrap() = says("500 Oops", "no");
    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Healthy, Health::Failing));
    assert_eq!(change.report.reason, "500, body: no");
    assert_eq!(endpoint.health(), Health::Failing);

    *app.does.lock().unwrap() = says("200 OK", "");
    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Failing, Health::Healthy));

    // Keeps the port from others without listening.
    let guard = TcpSocket::new_v4().unwrap();
    guard.set_reuseport(true).unwrap();
    guard.bind(app.address).unwrap();
    drop(app);
    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Healthy, Health::Unreachable));
    assert_eq!(endpoint.last_probe().unwrap().verdict, Health::Unreachable);
    assert_eq!(prober.late(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_probed_no_more_and_the_others_go_on() {
    let app = App::saying("200 OK", "").await;
    let (stays, goes) = (endpoint(app.address), endpoint(app.address));
    let (sender, mut changes) = mpsc::channel(8);
    let mut prober = Prober::new(sender);
    let settings = rise_fall(1, 1);
    prober.reconcile(vec![
        (Arc::clone(&stays), Arc::clone(&settings)),
        (Arc::clone(&goes), settings),
    ]);
    next(&mut changes).await;
    next(&mut changes).await;
    let task = prober.watched[&stays.id]._task.id();

    // Equal settings in another Arc are no change.
    prober.reconcile(vec![(Arc::clone(&stays), rise_fall(1, 1))]);
    assert_eq!(prober.watching(), 1);
    assert_eq!(
        prober.watched[&stays.id]._task.id(),
        task,
        "an unchanged endpoint keeps its task"
    );
    until("the task drops the endpoint", || Arc::strong_count(&goes) == 1).await;

    drop(prober);
    until("the prober's end ends all tasks", || {
        Arc::strong_count(&stays) == 1
    })
    .await;
}

#[tokio::test]
async fn changed_settings_are_tried_at_once_and_keep_the_health() {
    let app = App::saying("200 OK", "").await;
    let endpoint = endpoint(app.address);
    let (sender, mut changes) = mpsc::channel(8);
    let mut prober = Prober::new(sender);
    // Never again within this test, so that what comes next comes of the change.
    let seldom = |health: config::Health| {
        Arc::new(config::Health {
            interval: Duration::from_secs(3600),
            ..health
        })
    };
    prober.reconcile(vec![(Arc::clone(&endpoint), seldom(over_http(http())))]);
    assert_eq!(next(&mut changes).await.to, Health::Healthy);

    let status = vec![(204, 204)];
    prober.reconcile(vec![(
        Arc::clone(&endpoint),
        seldom(over_http(HttpProbe { status, ..http() })),
    )]);
    assert_eq!(endpoint.health(), Health::Healthy);
    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Healthy, Health::Failing));
}

#[tokio::test]
async fn a_full_channel_delays_the_news_and_not_the_probes() {
    let app = App::saying("200 OK", "").await;
    let (first, second) = (endpoint(app.address), endpoint(app.address));
    let (sender, mut changes) = mpsc::channel(1);
    let mut prober = Prober::new(sender);
    let settings = rise_fall(1, 1);
    prober.reconcile(vec![
        (Arc::clone(&first), Arc::clone(&settings)),
        (Arc::clone(&second), settings),
    ]);
    // One of the two fills the channel; the other tries in vain and goes on probing.
    until("several tries in vain", || prober.late() >= 3).await;
    assert_eq!(
        (first.health(), second.health()),
        (Health::Healthy, Health::Healthy)
    );

    let (one, other) = (next(&mut changes).await, next(&mut changes).await);
    let mut told = [one.endpoint.id, other.endpoint.id];
    told.sort_unstable();
    assert_eq!(told, [first.id, second.id]);
    assert_eq!((one.to, other.to), (Health::Healthy, Health::Healthy));
}

#[tokio::test]
async fn more_endpoints_than_slots_are_all_probed() {
    let app = App::saying("200 OK", "").await;
    let hanging = App::that(Does::Hang("")).await;
    let (sender, _changes) = mpsc::channel(8);
    let mut prober = Prober::new(sender);
    let short = Arc::new(settings(Probe::Http(Box::new(http())), Duration::from_millis(50)));
    let slow: Vec<_> = (0..PROBES_AT_ONCE + 20)
        .map(|_| endpoint(hanging.address))
        .collect();
    let last = endpoint(app.address);
    let mut wanted: Vec<_> = slow
        .iter()
        .map(|endpoint| (Arc::clone(endpoint), Arc::clone(&short)))
        .collect();
    wanted.push((Arc::clone(&last), rise_fall(1, 1)));
    prober.reconcile(wanted);
    until("every endpoint was probed", || {
        last.health() == Health::Healthy && slow.iter().all(|e| e.health() == Health::Failing)
    })
    .await;
}

#[tokio::test]
async fn probe_all_reports_in_order_and_makes_unknown_healthy() {
    let good = App::saying("200 OK", "").await;
    let bad = App::saying("503 No", "warming up").await;
    // Bound, so that nobody else gets the port, but not listening.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoints = [good.address, bad.address, closed.local_addr().unwrap()].map(endpoint);
    let list = endpoints
        .iter()
        .map(|endpoint| (Arc::clone(endpoint), rise_fall(2, 3)))
        .collect();
    let reports = probe_all(list).await;
    let found: Vec<_> = reports
        .iter()
        .map(|(endpoint, report)| (endpoint.id, report.verdict, endpoint.health()))
        .collect();
    let expected = [Health::Healthy, Health::Failing, Health::Unreachable];
    for ((endpoint, expected), found) in endpoints.iter().zip(expected).zip(found) {
        assert_eq!(found, (endpoint.id, expected, expected));
        assert_eq!(endpoint.last_probe().unwrap().verdict, expected);
    }
}

#[tokio::test]
async fn a_pass_of_probe_all_is_repeated_until_the_judge_believes_it() {
    let app = App::saying("200 OK", "").await;
    let endpoint = endpoint(app.address);
    endpoint.set_health(Health::Unreachable);
    let reports = probe_all(vec![(Arc::clone(&endpoint), rise_fall(3, 3))]).await;
    assert_eq!(reports[0].1.verdict, Health::Healthy);
    assert_eq!(
        endpoint.health(),
        Health::Healthy,
        "what passed the gate takes traffic"
    );
    assert_eq!(app.asked.lock().unwrap().len(), 3);

    // And one failure does not end the health that periodic probes have found, but is reported.
    *app.does.lock().unwrap() = says("500 Oops", "");
    let reports = probe_all(vec![(Arc::clone(&endpoint), rise_fall(3, 3))]).await;
    assert_eq!(reports[0].1.verdict, Health::Failing);
    assert_eq!(endpoint.health(), Health::Healthy);
}

#[tokio::test]
async fn what_probe_all_changed_is_told_by_the_next_periodic_probe() {
    let app = App::saying("200 OK", "").await;
    let endpoint = endpoint(app.address);
    probe_all(vec![(Arc::clone(&endpoint), rise_fall(2, 3))]).await;
    let (sender, mut changes) = mpsc::channel(8);
    let mut prober = Prober::new(sender);
    prober.reconcile(vec![(Arc::clone(&endpoint), rise_fall(2, 3))]);
    let change = next(&mut changes).await;
    assert_eq!((change.from, change.to), (Health::Unknown, Health::Healthy));
}

#[test]
fn first_pauses_are_spread_over_one_interval() {
    let interval = Duration::from_secs(10);
    let mut pauses: Vec<_> = (1..=100).map(|id| first_pause(id, interval)).collect();
    pauses.sort_unstable();
    assert!(pauses[0] >= interval / 2 && pauses[99] <= interval * 3 / 2);
    let widest = pauses.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(widest < interval / 20, "a gap of {widest:?}");
}
