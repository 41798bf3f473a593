//! Every exit code of the interface that this version can reach, with real processes.

use std::path::Path;
use std::time::Duration;

use crate::backend::Backend;
use crate::figures::alone;
use crate::judge::Color;
use crate::ports;
use crate::server::{PATIENCE, Site, cli_in, eventually, simple};

/// A port where nothing listens.
fn nobody() -> String {
    format!("127.0.0.1:{}", ports::free())
}

#[test]
fn exit_0_done_and_already_so() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    site.cli(&["switch", "green"]).expect(0);
    let (color, generation) = site.admin().state();
    assert_eq!(color, Color::Green);
    let again = site.cli(&["switch", "green", "--json"]).expect(0);
    let said: serde_json::Value = serde_json::from_str(&again.stdout).expect("stdout is one JSON value");
    assert_eq!(said["changed"], false, "{said}");
    assert_eq!(site.admin().state().1, generation, "nothing changed");
    site.cli(&["switch", "blue", "--dry-run"]).expect(0);
    assert_eq!(
        site.admin().state(),
        (Color::Green, generation),
        "a dry run does nothing"
    );
    site.cli(&["switch", "standby"]).expect(0);
    site.cli(&["rollback"]).expect(0);
    assert_eq!(site.admin().state().0, Color::Green);
    site.cli(&["status"]).expect(0).says(&["green", "web"]);
    site.cli(&["history"]).expect(0).says(&["switch", "rollback"]);
    site.cli_plain(&["check", "-c", site.config().to_str().unwrap()])
        .expect(0);
    server.stop();
}

#[test]
fn exit_1_the_port_is_taken() {
    let _machine = alone();
    let other = Backend::says("other");
    let site = Site::simple(nobody(), nobody());
    let text = site
        .text(&simple(&nobody(), &nobody(), ""))
        .replace(&site.address().to_string(), &other.address.to_string());
    std::fs::write(site.config(), text).unwrap();
    let end = site.try_run().err().expect("the port is taken");
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    let port = other.address.port().to_string();
    assert!(end.stderr.contains(&port), "it names the port:\n{}", end.stderr);
}

#[test]
fn exit_2_usage() {
    let _machine = alone();
    for (args, word) in [
        (&["swich", "green"][..], "switch"),
        (&["switch", "gren"], "green"),
        (&["switch"], "<TO>"),
        (&["weight", "green=lots"], "green=lots"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
    ] {
        cli_in(Path::new("/"), args).expect(2).says(&[word]);
    }
}

#[test]
fn exit_3_config_invalid() {
    let _machine = alone();
    let site = Site::simple(nobody(), nobody());
    std::fs::write(site.config(), "[[listener]]\nadress = \"127.0.0.1:80\"\n").unwrap();
    let config = site.config();
    let check = site
        .cli_plain(&["check", "-c", config.to_str().unwrap()])
        .expect(3);
    check.says(&["cutover.toml:2", "adress", "address"]);
    let end = site.try_run().err().expect("an invalid config");
    assert_eq!(end.code, Some(3), "{}", end.stderr);
}

#[test]
fn exit_4_refused_by_health_with_every_probe() {
    let _machine = alone();
    let blue = Backend::says("blue");
    let dead = nobody();
    let site = Site::simple(blue.address, &dead);
    let server = site.run();
    let before = site.admin().state();
    site.cli(&["switch", "green"]).expect(4).says(&[&dead, "blue"]);
    assert_eq!(site.admin().state(), before, "nothing moved");
    assert_eq!(site.client().get("/").expect("an answer").json()["color"], "blue");
    // Draining the color that has the traffic is refused too.
    site.cli(&["drain", "blue"]).expect(4);
    // Over health: only by name and with a reason.
    site.cli(&["switch", "green", "--force", "--reason", "the drill"])
        .expect(0);
    assert_eq!(site.admin().state().0, Color::Green);
    site.cli(&["history"]).expect(0).says(&["the drill"]);
    server.stop();
}

#[test]
fn exit_5_still_running_at_the_timeout() {
    let _machine = alone();
    let ((blue, arrivals), green) = (Backend::says_when_slow("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    let address = site.address();
    let slow = std::thread::spawn(move || {
        let mut client = crate::wire::Client::connect(address).expect("connect");
        client.get("/slow?ms=3000").map(|answer| answer.json())
    });
    arrivals
        .recv_timeout(PATIENCE)
        .expect("blue has the slow request");
    site.cli(&["switch", "green"]).expect(0);
    site.cli(&["wait-drained", "blue", "--timeout", "200ms"])
        .expect(5);
    assert_eq!(
        slow.join().unwrap().expect("the slow request ends well")["color"],
        "blue"
    );
    site.cli(&["wait-drained", "blue", "--timeout", "20s"]).expect(0);
    // A color nobody switched away from is no drain at all.
    site.cli(&["wait-drained", "green", "--timeout", "20s"]).expect(4);
    server.stop();
}

#[test]
fn exit_6_the_generation_moved() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    let (_, generation) = site.admin().state();
    let before = generation.to_string();
    site.cli(&["switch", "green", "--expect-generation", &before])
        .expect(0);
    site.cli(&["switch", "blue", "--expect-generation", &before])
        .expect(6)
        .says(&[&before]);
    assert_eq!(
        site.admin().state().0,
        Color::Green,
        "the second operator moved nothing"
    );
    server.stop();
}

#[test]
fn two_operators_cannot_both_flip() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    for round in 0..5 {
        let (active, generation) = site.admin().state();
        let (to, at) = (active.other().name(), generation.to_string());
        let codes: Vec<i32> = std::thread::scope(|scope| {
            let both: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| site.cli(&["switch", to, "--expect-generation", &at]).code))
                .collect();
            both.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 6], "round {round}: {codes:?}");
        assert_eq!(site.admin().state(), (active.other(), generation + 1));
    }
    server.stop();
}

#[test]
fn exit_7_no_server() {
    let _machine = alone();
    let site = Site::simple(nobody(), nobody());
    let socket = site.socket();
    site.cli(&["status"]).expect(7).says(&[socket.to_str().unwrap()]);
    site.cli_plain(&["switch", "green", "--admin", &format!("http://{}", nobody())])
        .expect(7);
}

#[test]
fn exit_8_not_permitted() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let door = nobody();
    let site = Site::simple(blue.address, green.address);
    let token = site.path().join("token");
    std::fs::write(&token, "right-horse-battery-staple\n").unwrap();
    let admin = format!("[admin]\naddress = \"{door}\"\ntoken_file = {token:?}\n\n");
    site.write(&(admin + &simple(&blue.address.to_string(), &green.address.to_string(), "")));
    let server = site.run();
    let url = format!("http://{door}");
    site.cli_plain(&["status", "--admin", &url]).expect(0);
    site.cli_plain(&["switch", "green", "--admin", &url]).expect(8);
    let wrong = site.path().join("wrong");
    std::fs::write(&wrong, "wrong-horse-battery-staple\n").unwrap();
    let with = |file: &Path| {
        let mut command = std::process::Command::new(crate::server::binary());
        command
            .args(["switch", "green", "--admin", &url])
            .env("CUTOVER_TOKEN_FILE", file)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(with(&wrong), Some(8));
    assert_eq!(site.admin().state().0, Color::Blue, "nothing moved");
    assert_eq!(with(&token), Some(0));
    assert_eq!(site.admin().state().0, Color::Green);
    server.stop();
}

#[test]
fn exit_9_traffic_moved_and_came_back() {
    let _machine = alone();
    let blue = Backend::says("blue");
    // Healthy when asked directly, nonsense when asked through the proxy: only `verify` can see it.
    let green = Backend::says_unless("green", |seen| {
        seen.header("x-forwarded-for")
            .map(|_| b"nonsense\r\n\r\n".to_vec())
    });
    let health = "[app.web.health]\npath = \"/healthz\"\n";
    let site = Site::new(&simple(
        &blue.address.to_string(),
        &green.address.to_string(),
        health,
    ));
    let server = site.run();
    let (_, generation) = site.admin().state();
    site.cli(&["switch", "green"]).expect(9).says(&["blue"]);
    let (color, now) = site.admin().state();
    assert_eq!(color, Color::Blue, "rolled back");
    assert_eq!(now, generation + 2, "there and back are two changes");
    assert_eq!(site.client().get("/").expect("an answer").json()["color"], "blue");
    server.stop();
}

#[test]
fn exit_10_nothing_to_roll_back_to() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    site.cli(&["rollback"]).expect(10);
    site.cli(&["switch", "green"]).expect(0);
    site.cli(&["rollback"]).expect(0);
    // Never to the color that was just left.
    site.cli(&["rollback"]).expect(10);
    assert_eq!(site.admin().state().0, Color::Blue);
    // Unreachable: refused, and said so.
    site.cli(&["switch", "green"]).expect(0);
    drop(blue);
    eventually("blue is known to be gone", Duration::from_secs(20), || {
        (site.cli(&["rollback", "--dry-run"]).code == 10).then_some(())
    });
    site.cli(&["rollback"]).expect(10).says(&["blue"]);
    assert_eq!(site.admin().state().0, Color::Green, "traffic unchanged");
    server.stop();
}
