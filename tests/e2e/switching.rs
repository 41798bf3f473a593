//! The promise under load: in front of uvicorn and Node, with 64 kept-alive connections that GET and POST, nothing
//! fails and nothing is late; not with the standby killed, nor with the config reloaded all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::apps::{App, Kind};
use crate::figures::{alone, say, size};
use crate::judge::{Color, Reply, Switch, judge};
use crate::load::{Load, Plan};
use crate::random::Random;
use crate::server::{Admin, Site, eventually};
use crate::wire::Broken;

const CONNECTIONS: usize = 64;

/// `page` on uvicorn and `api` on Node, both colors of each, behind one cutover.
struct Bench {
    /// Blue's two, then green's two.
    apps: [App; 4],
    site: Site,
}

impl Bench {
    fn start() -> Self {
        let apps = App::start_all([
            (Kind::Uvicorn, Color::Blue),
            (Kind::Node, Color::Blue),
            (Kind::Uvicorn, Color::Green),
            (Kind::Node, Color::Green),
        ]);
        let site = Site::new(&config(&apps, 0));
        Self { apps, site }
    }

    fn plan(&self) -> Plan {
        Plan {
            prefixes: vec!["/", "/api"],
            ..Plan::to(self.site.address(), CONNECTIONS)
        }
    }
}

/// `round` changes a header of the answers: harmless, and another file each time.
fn config(apps: &[App; 4], round: usize) -> String {
    let [blue_page, blue_api, green_page, green_api] = apps.each_ref().map(App::address);
    format!(
        r#"
[app.web]
initial = "blue"

[app.web.health]
path = "/healthz"
interval = "500ms"
timeout = "5s"

[app.web.headers.response]
set = {{ "x-round" = "{round}" }}

[app.web.service.page]
path_prefix = "/"
blue = ["{blue_page}"]
green = ["{green_page}"]

[app.web.service.api]
path_prefix = "/api"
blue = ["{blue_api}"]
green = ["{green_api}"]
"#
    )
}

/// The operator: switches, and keeps the log.
struct Operator<'a> {
    site: &'a Site,
    admin: Admin,
    active: Color,
    log: Vec<Switch>,
}

impl<'a> Operator<'a> {
    fn new(site: &'a Site) -> Self {
        let mut admin = site.admin();
        let (active, _) = admin.state();
        Self {
            site,
            admin,
            active,
            log: Vec::new(),
        }
    }

    /// Ask for the standby over the kept connection.
    fn switch(&mut self) -> Reply {
        let to = self.active.other();
        let sent = Instant::now();
        let answer = self.admin.switch(to);
        let replied = Instant::now();
        let reply = match answer {
            Ok((200, said)) => {
                assert_eq!(said["active"], to.name(), "{said}");
                assert_eq!(said["changed"], true, "{said}");
                Reply::Done
            }
            Ok((422, _)) => Reply::Refused,
            Ok((status, said)) => panic!("switch to {to}: {status} {said}"),
            Err(Broken::TimedOut) => panic!("switch to {to}: no reply"),
            Err(broken) => panic!("switch to {to}: {broken}"),
        };
        self.note(to, sent, replied, reply)
    }

    /// Ask for the standby on the command line.
    fn switch_by_cli(&mut self) -> Reply {
        let to = self.active.other();
        let sent = Instant::now();
        let answer = self.site.cli(&["switch", to.name()]);
        let replied = Instant::now();
        let reply = match answer.code {
            0 => Reply::Done,
            4 => Reply::Refused,
            code => panic!("cutover switch {to}: exit {code}\n{}", answer.text()),
        };
        self.note(to, sent, replied, reply)
    }

    fn note(&mut self, to: Color, sent: Instant, replied: Instant, reply: Reply) -> Reply {
        self.log.push(Switch {
            sent,
            replied,
            to,
            reply,
        });
        if reply == Reply::Done {
            self.active = to;
        }
        reply
    }

    fn done(&self) -> u64 {
        self.log
            .iter()
            .filter(|switch| switch.reply == Reply::Done)
            .count() as u64
    }
}

#[test]
fn no_request_fails_and_none_is_late_in_a_thousand_switches() {
    let _machine = alone();
    let mut random = Random::seeded("switching");
    let bench = Bench::start();
    let server = bench.site.run();
    let mut operator = Operator::new(&bench.site);
    let (first, generation) = operator.admin.state();
    let load = Load::start(&bench.plan(), &mut random);
    load.flow(CONNECTIONS * 4);
    for round in 0..size(100, 1000) {
        let reply = if round % 10 == 9 {
            operator.switch_by_cli()
        } else {
            operator.switch()
        };
        assert_eq!(reply, Reply::Done, "both colors are healthy\n{}", server.stderr());
        std::thread::sleep(random.pause(Duration::from_millis(20)));
    }
    load.flow(CONNECTIONS * 4);
    let opened = load.opened.load(Ordering::Relaxed);
    let records = load.stop();
    let verdict = judge(first, &operator.log, &records);
    say(&format!(
        "switching: {} over {opened} connections",
        verdict.line(&operator.log)
    ));
    verdict.assert_clean();
    assert!(
        verdict.by_color.iter().all(|count| *count > 0),
        "both colors served"
    );
    assert_eq!(opened, CONNECTIONS, "a switch closes no client's connection");
    assert_eq!(
        operator.admin.state(),
        (operator.active, generation + operator.done()),
        "one generation a switch"
    );
    server.stop();
}

#[test]
fn a_killed_standby_costs_no_request() {
    let _machine = alone();
    let mut random = Random::seeded("killed standby");
    let mut bench = Bench::start();
    let server = bench.site.run();
    let plan = bench.plan();
    let Bench { apps, site } = &mut bench;
    let mut operator = Operator::new(site);
    let first = operator.active;
    let load = Load::start(&plan, &mut random);
    load.flow(CONNECTIONS * 4);
    let (mut kills, mut refused) = (0, 0);
    while operator.done() < size(100, 1000) as u64 {
        let was_left = operator.done() > 0;
        if random.once_in(5) {
            if was_left {
                // The old color finishes what it has; then its process may go (decision 6).
                site.cli(&["wait-drained", operator.active.other().name(), "--timeout", "20s"])
                    .expect(0);
            }
            let standby = 2 * operator.active.other() as usize;
            let victim = standby + random.below(2);
            std::thread::sleep(random.pause(Duration::from_millis(60)));
            apps[victim].kill();
            kills += 1;
            std::thread::sleep(random.pause(Duration::from_millis(60)));
            assert_eq!(operator.switch(), Reply::Refused, "a switch to a dead standby");
            refused += 1;
            apps[victim].restart();
            eventually(
                "the restarted standby is healthy again",
                Duration::from_secs(30),
                || (operator.switch() == Reply::Done).then_some(()),
            );
        } else {
            assert_eq!(operator.switch(), Reply::Done, "{}", server.stderr());
        }
        std::thread::sleep(random.pause(Duration::from_millis(10)));
    }
    load.flow(CONNECTIONS * 4);
    let verdict = judge(first, &operator.log, &load.stop());
    say(&format!(
        "standby killed {kills} times, {refused} switches to it refused: {}",
        verdict.line(&operator.log)
    ));
    verdict.assert_clean();
    assert!(kills > 0, "nothing was killed");
    server.stop();
}

#[test]
fn config_reloads_cost_no_request() {
    let _machine = alone();
    let mut random = Random::seeded("reloads");
    let bench = Bench::start();
    let server = bench.site.run();
    let mut operator = Operator::new(&bench.site);
    let first = operator.active;
    let load = Load::start(&bench.plan(), &mut random);
    load.flow(CONNECTIONS * 4);
    let (reloads, wanted) = (AtomicUsize::new(0), size(25, 200));
    let ended = AtomicBool::new(false);
    let mut pauses = Random::from(random.next());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = SetWhenDropped(&ended);
            for round in 1..=wanted {
                bench.site.write(&config(&bench.apps, round));
                bench.site.cli(&["reload"]).expect(0);
                reloads.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(pauses.pause(Duration::from_millis(40)));
            }
        });
        while !ended.load(Ordering::Relaxed) || operator.done() < size(50, 500) as u64 {
            assert_eq!(operator.switch(), Reply::Done, "{}", server.stderr());
            std::thread::sleep(random.pause(Duration::from_millis(30)));
        }
    });
    load.flow(CONNECTIONS * 4);
    let opened = load.opened.load(Ordering::Relaxed);
    let verdict = judge(first, &operator.log, &load.stop());
    say(&format!(
        "{} reloads meanwhile: {}",
        reloads.into_inner(),
        verdict.line(&operator.log)
    ));
    verdict.assert_clean();
    assert_eq!(opened, CONNECTIONS, "a reload closes no client's connection");
    let answer = bench.site.client().get("/").expect("an answer");
    assert_eq!(
        answer.header("x-round"),
        Some(wanted.to_string().as_str()),
        "the last file is the one in use"
    );
    server.stop();
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every kind of app server, plain: streams, slow answers, HEAD and all body forms come through unchanged.
#[test]
fn uvicorn_gunicorn_and_node_look_the_same_through_the_proxy() {
    let _machine = alone();
    let mut random = Random::seeded("app servers");
    for kind in [Kind::Uvicorn, Kind::Gunicorn, Kind::Node] {
        let [blue, green] = App::start_all([(kind, Color::Blue), (kind, Color::Green)]);
        let site = Site::simple(blue.address(), green.address());
        let server = site.run();
        let load = Load::start(&Plan::to(site.address(), 8), &mut random);
        load.flow(200);
        let mut operator = Operator::new(&site);
        for _ in 0..4 {
            assert_eq!(operator.switch(), Reply::Done);
            load.flow(40);
        }
        let verdict = judge(Color::Blue, &operator.log, &load.stop());
        say(&format!("{kind:?}: {}", verdict.line(&operator.log)));
        verdict.assert_clean();

        let mut client = site.client();
        let stream = client.get("/stream?kb=300").expect("a stream");
        assert!(
            stream.body.len() == 300 * 1024 && stream.body.iter().all(|byte| *byte == b'b'),
            "{kind:?}"
        );
        let head = client
            .exchange(&crate::wire::request("HEAD", "/x", &[], None))
            .expect("a HEAD");
        assert_eq!((head.status, head.body.len()), (200, 0), "{kind:?}");
        let seen = client.get("/whoami").expect("an answer").json();
        assert_eq!(seen["host"], "test", "{kind:?}: the client's own Host");
        assert_eq!(seen["forwarded_for"], "127.0.0.1", "{kind:?}");
        assert_eq!(seen["forwarded_proto"], "http", "{kind:?}");
        assert_ne!(seen["request_id"], "", "{kind:?}");
        server.stop();
    }
}
