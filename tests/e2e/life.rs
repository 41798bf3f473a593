//! Start and end of the process.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::apps::{App, Kind};
use crate::backend::Backend;
use crate::figures::{alone, say, size};
use crate::judge::{Color, judge};
use crate::load::{Load, Plan};
use crate::random::Random;
use crate::server::{PATIENCE, Site, eventually};
use crate::wire::Client;

#[test]
fn sigterm_under_load_loses_no_request() {
    let _machine = alone();
    let mut random = Random::seeded("sigterm");
    let [blue, green] = App::start_all([(Kind::Uvicorn, Color::Blue), (Kind::Node, Color::Green)]);
    let site = Site::simple(blue.address(), green.address());
    let rounds = size(3, 20);
    let mut requests = 0;
    for _ in 0..rounds {
        let mut server = site.run();
        let load = Load::start(
            &Plan {
                reconnect: false,
                ..Plan::to(site.address(), 32)
            },
            &mut random,
        );
        load.flow(200);
        std::thread::sleep(random.pause(Duration::from_millis(50)));
        server.signal(Signal::TERM);
        let records = load.finish();
        let verdict = judge(Color::Blue, &[], &records);
        verdict.assert_clean();
        requests += verdict.requests;
        let status = server.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", server.stderr());
    }
    say(&format!(
        "SIGTERM under load {rounds} times: {requests} requests, 0 lost"
    ));
}

#[test]
fn a_slow_request_is_finished_and_a_second_sigterm_does_not_wait() {
    let _machine = alone();
    let ((blue, arrivals), green) = (Backend::says_when_slow("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let address = site.address();
    let ask = |ms: u32| {
        let slow = std::thread::spawn(move || {
            Client::connect(address)
                .expect("connect")
                .get(&format!("/slow?ms={ms}"))
        });
        arrivals.recv_timeout(PATIENCE).expect("blue has the request");
        slow
    };

    let mut server = site.run();
    let slow = ask(1500);
    server.signal(Signal::TERM);
    let answer = slow.join().unwrap().expect("it ends well");
    assert_eq!(
        (answer.status, answer.json()["color"].as_str()),
        (200, Some("blue"))
    );
    assert_eq!(
        server.wait(PATIENCE).expect("it ends").code(),
        Some(0),
        "{}",
        server.stderr()
    );

    let mut server = site.run();
    let slow = ask(20_000);
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        server.ended().is_none(),
        "it did not wait for the running request\n{}",
        server.stderr()
    );
    let second = Instant::now();
    server.signal(Signal::TERM);
    server
        .wait(Duration::from_secs(5))
        .expect("the second SIGTERM ends it");
    assert!(
        second.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        second.elapsed()
    );
    assert!(slow.join().unwrap().is_err(), "the running request is cut");
}

#[test]
fn a_silent_kept_connection_does_not_hold_the_shutdown() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let mut server = site.run();
    let mut client = site.client();
    assert_eq!(client.get("/").expect("an answer").status, 200);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    // Closed after a linger of 2 s (decision 33), not when some timeout of its own is over (10 s and more).
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "it took {:?}",
        asked.elapsed()
    );
}

#[test]
fn the_grace_bounds_the_shutdown() {
    let _machine = alone();
    let ((blue, arrivals), green) = (Backend::says_when_slow("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let text = std::fs::read_to_string(site.config())
        .unwrap()
        .replace("[server]\n", "[server]\nshutdown_grace = \"1s\"\n");
    std::fs::write(site.config(), text).unwrap();
    let mut server = site.run();
    let address = site.address();
    let slow = std::thread::spawn(move || Client::connect(address).expect("connect").get("/slow?ms=20000"));
    arrivals.recv_timeout(PATIENCE).expect("blue has the request");
    let asked = Instant::now();
    server.signal(Signal::TERM);
    server
        .wait(Duration::from_secs(10))
        .expect("it ends when the grace does");
    assert!(
        asked.elapsed() >= Duration::from_millis(900),
        "it gave up after {:?}",
        asked.elapsed()
    );
    assert!(slow.join().unwrap().is_err());
}

#[test]
fn without_a_file_run_takes_flags() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    // The folder gives the state directory (./.cutover); the site's own file is not read.
    let site = Site::simple(blue.address, green.address);
    std::fs::remove_file(site.config()).unwrap();
    let (listen, blue, green) = (
        site.address().to_string(),
        blue.address.to_string(),
        green.address.to_string(),
    );
    let mut child = std::process::Command::new(crate::server::binary());
    child
        .args(["run", "--listen", &listen, "--blue", &blue, "--green", &green])
        .current_dir(site.path());
    for name in [
        "STATE_DIRECTORY",
        "XDG_STATE_HOME",
        "CUTOVER_ADMIN",
        "CUTOVER_TOKEN_FILE",
    ] {
        child.env_remove(name);
    }
    let mut child = child
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let answer = eventually("it serves", PATIENCE, || {
            let answer = Client::connect(site.address()).ok()?.get("/").ok()?;
            (answer.status == 200).then_some(answer)
        });
        assert_eq!(answer.json()["color"], "blue");
        let switch = || crate::server::cli_in(site.path(), &["switch", "green"]);
        eventually("./.cutover/admin.sock is found without a flag", PATIENCE, || {
            (switch().code == 0).then_some(())
        });
        assert_eq!(
            site.client().get("/").expect("an answer").json()["color"],
            "green"
        );
    });
    let _ = child.kill();
    let _ = child.wait();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
