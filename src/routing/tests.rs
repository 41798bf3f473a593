//! What a rebuild carries over, opens and closes; which endpoint a lane picks; which color is chosen.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::config::{self, Config, EndpointAddress};
use crate::metrics::Registry;
use crate::rollout::{AppState, ByColor, Color, Hold, Weight};
use crate::tls::Originators;
use crate::upstream::Health;

const WORKERS: usize = 2;

/// An app with its parts, rebuilt as a controller would.
struct Bench {
    config: Config,
    state: AppState,
    registry: Registry,
    drained: Arc<Notify>,
    route: Arc<AppRoute>,
}

impl Bench {
    fn new(blue: &[&str], green: &[&str]) -> Self {
        let list = |list: &[&str]| {
            list.iter()
                .map(|address| format!("\"{address}\""))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let text = format!(
            "[server]\nstate_dir = \"/nowhere\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [{}]\ngreen = [{}]\n\
             health = {{ path = \"/healthz\" }}\n",
            list(blue),
            list(green)
        );
        let config = config::parse(&text, "test", &|_| None).unwrap();
        let state = AppState::first(Color::Blue, Timestamp::UNIX_EPOCH);
        let registry = Registry::new(WORKERS, 1);
        let drained = Arc::default();
        let built = build(&config, &state, &registry, &drained, None);
        assert!(built.closing.is_empty());
        Self {
            config,
            state,
            registry,
            drained,
            route: built.app,
        }
    }

    fn rebuild(&mut self) -> Vec<(Color, Arc<crate::upstream::Gate>)> {
        let built = build(
            &self.config,
            &self.state,
            &self.registry,
            &self.drained,
            Some(&self.route),
        );
        self.route = built.app;
        built.closing
    }

    fn member(&self, color: Color) -> &Arc<Member> {
        &self.route.services[0].pools[color].members[0]
    }

    fn lane(&self, color: Color) -> &Arc<Lane> {
        &self.route.services[0].pools[color].lanes[0]
    }

    fn choose(&self, path: &str, special: Special) -> Result<Choice, Unavailable> {
        let (uri, headers) = (path.parse().unwrap(), http::HeaderMap::new());
        let asked = Asked::plain(&uri, &headers);
        choose(&self.route, &self.route.services[0], 0, &asked, None, special)
    }

    fn health(&self, color: Color, health: Health) {
        for member in &self.route.services[0].pools[color].members {
            member.endpoint.set_health(health);
        }
    }
}

fn build(
    config: &Config,
    state: &AppState,
    registry: &Registry,
    drained: &Arc<Notify>,
    before: Option<&AppRoute>,
) -> Built {
    let of = &config.apps["web"];
    let endpoints: ByColor<BTreeMap<String, Vec<EndpointAddress>>> = ByColor::from_fn(|color| {
        of.services
            .values()
            .map(|service| (service.name.clone(), service.endpoints[color].clone()))
            .collect()
    });
    let fixed = Fixed {
        workers: WORKERS,
        registry,
        drained,
        originators: &Originators::default(),
    };
    let input = AppInput {
        config: of,
        state,
        degraded: false,
        endpoints: &endpoints,
    };
    rebuild(fixed, input, &Resolved::default(), before, Instant::now())
}

fn two() -> Bench {
    Bench::new(&["127.0.0.1:1"], &["127.0.0.1:2"])
}

#[test]
fn a_rebuild_that_changes_nothing_carries_everything_over() {
    let mut bench = two();
    let before = Arc::clone(bench.member(Color::Blue));
    let claim = before.open.as_ref().unwrap().claim(0).unwrap();
    assert!(bench.rebuild().is_empty());
    let after = bench.member(Color::Blue);
    assert!(Arc::ptr_eq(&before.endpoint, &after.endpoint));
    assert_eq!(before.open.as_ref().unwrap().id, after.open.as_ref().unwrap().id);
    assert_eq!(after.open.as_ref().unwrap().in_flight(), 1);
    drop(claim);
}

#[test]
fn a_switch_closes_the_left_color_for_ordinary_traffic_only() {
    let mut bench = two();
    let open = Arc::clone(bench.member(Color::Blue).open.as_ref().unwrap());
    let explicit = bench.member(Color::Blue).explicit.as_ref().unwrap().id;
    bench.state.active = Color::Green;
    let closing = bench.rebuild();
    assert_eq!(
        closing
            .iter()
            .map(|(color, gate)| (*color, gate.id))
            .collect::<Vec<_>>(),
        [(Color::Blue, open.id)]
    );
    assert!(bench.member(Color::Blue).open.is_none());
    assert_eq!(bench.member(Color::Blue).explicit.as_ref().unwrap().id, explicit);
    assert!(bench.member(Color::Green).open.is_some());
    // The gate itself still lets in who comes between publish and close; after that, nobody.
    let late = open.claim(1).unwrap();
    open.close();
    assert!(open.claim(1).is_none());
    assert_eq!(open.in_flight(), 1);
    drop(late);
    assert_eq!(open.in_flight(), 0);
}

#[test]
fn a_color_that_returns_gets_a_new_gate() {
    let mut bench = two();
    let first = bench.member(Color::Blue).open.as_ref().unwrap().id;
    bench.state.active = Color::Green;
    bench.rebuild();
    bench.state.active = Color::Blue;
    bench.rebuild();
    assert_ne!(bench.member(Color::Blue).open.as_ref().unwrap().id, first);
}

#[test]
fn a_hold_closes_the_ordinary_gates_and_a_release_opens_new_ones() {
    let mut bench = two();
    let before = bench.member(Color::Blue).open.as_ref().unwrap().id;
    bench.state.hold = Some(Hold {
        since: Timestamp::UNIX_EPOCH,
        max: Duration::from_secs(5),
    });
    let closing = bench.rebuild();
    assert_eq!(
        closing.iter().map(|(_, gate)| gate.id).collect::<Vec<_>>(),
        [before]
    );
    assert_eq!(bench.choose("/", Special::None), Err(Unavailable::Held));
    let health = bench.choose("/healthz", Special::None).unwrap();
    assert!(health.explicit && bench.lane(Color::Blue).pick(0, true, &[]).is_ok());
    assert!(bench.choose("/", Special::Verify).unwrap().explicit);
    bench.state.hold = None;
    assert!(bench.rebuild().is_empty());
    assert_ne!(bench.member(Color::Blue).open.as_ref().unwrap().id, before);
}

#[test]
fn a_drained_color_has_no_gate_at_all() {
    let mut bench = two();
    bench.state.colors[Color::Green].drained = true;
    let closing = bench.rebuild();
    assert_eq!(
        closing.iter().map(|(color, _)| *color).collect::<Vec<_>>(),
        [Color::Green]
    );
    assert!(bench.member(Color::Green).explicit.is_none());
    assert_eq!(
        bench.lane(Color::Green).pick(0, true, &[]).unwrap_err(),
        PickError::Empty
    );
}

#[test]
fn an_endpoint_that_leaves_takes_its_gates_along() {
    let mut bench = Bench::new(&["127.0.0.1:1", "127.0.0.1:3"], &["127.0.0.1:2"]);
    let service = bench
        .config
        .apps
        .get_mut("web")
        .unwrap()
        .services
        .get_mut("web")
        .unwrap();
    let gone = service.endpoints[Color::Blue].remove(0);
    let closing = bench.rebuild();
    assert_eq!(closing.len(), 2);
    assert!(
        bench.route.services[0].pools[Color::Blue]
            .members
            .iter()
            .all(|member| member.endpoint.key.address != gone)
    );
}

#[test]
fn a_closed_gate_says_load_again_and_an_empty_pool_says_nothing_there() {
    let bench = two();
    let gate = bench.member(Color::Blue).open.as_ref().unwrap();
    gate.close();
    assert_eq!(
        bench.lane(Color::Blue).pick(0, false, &[]).unwrap_err(),
        PickError::Closed
    );
    assert_eq!(
        bench.lane(Color::Green).pick(0, false, &[]).unwrap_err(),
        PickError::Empty
    );
}

#[test]
fn the_lesser_of_two_is_picked_and_the_one_that_failed_is_left_out() {
    let bench = Bench::new(&["127.0.0.1:1", "127.0.0.1:3"], &["127.0.0.1:2"]);
    let lane = bench.lane(Color::Blue);
    let first = lane.pick(0, false, &[]).unwrap();
    let second = lane.pick(0, false, &[]).unwrap();
    assert_ne!(first.endpoint().id, second.endpoint().id);
    drop(second);
    for ticket in 0..4 {
        let claim = lane.pick(ticket, false, &[first.endpoint().id]).unwrap();
        assert_ne!(claim.endpoint().id, first.endpoint().id);
    }
}

#[test]
fn the_last_endpoint_of_the_active_color_serves_while_failing_but_not_while_unreachable() {
    let bench = two();
    bench.health(Color::Blue, Health::Failing);
    assert!(bench.lane(Color::Blue).pick(0, false, &[]).is_ok());
    bench.health(Color::Blue, Health::Unreachable);
    assert_eq!(
        bench.lane(Color::Blue).pick(0, false, &[]).unwrap_err(),
        PickError::Empty
    );
}

#[test]
fn a_share_goes_to_the_candidate_and_spills_when_it_is_sick() {
    let mut bench = two();
    bench.state.weight = Weight::candidate(25).unwrap();
    bench.rebuild();
    let green = |bench: &Bench| {
        (0..10_000)
            .filter(|_| bench.choose("/", Special::None).unwrap().color == Color::Green)
            .count()
    };
    let share = green(&bench);
    assert!((2_400..=2_600).contains(&share), "{share} of 10,000");
    bench.health(Color::Green, Health::Unreachable);
    assert_eq!(green(&bench), 0);
    let spilled = bench.route.spilled.load(std::sync::atomic::Ordering::Relaxed);
    assert!((2_400..=2_600).contains(&spilled), "{spilled} spilled");
}
