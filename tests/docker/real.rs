//! A real engine, where one runs: cutover on the host, the apps in containers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Compose, Engine};
use crate::figures::{alone, say};
use crate::server::{PATIENCE, Site, eventually};
use crate::wire::Client;

const COMPOSE: &str = r#"
services:
  app-blue:
    image: stand-in:1
    command: ["--name", "blue", "--port", "8000"]
"#;

#[test]
fn containers_of_a_real_engine_are_followed() {
    let _machine = alone();
    let Some(engine) = Engine::start("endpoints from Docker in a real engine") else {
        return;
    };
    engine.import(
        "python",
        "stand-in:1",
        &["ENTRYPOINT [\"/bin/sh\", \"/standin.sh\"]"],
    );
    let folder = engine.path().join("project");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("compose.yaml"), COMPOSE).unwrap();
    let compose = Compose {
        engine: &engine,
        folder,
        environment: Vec::new(),
    };
    compose.run(&["up", "-d", "--scale", "app-blue=2"]).expect(0);

    let site = Site::new("");
    site.write(&format!(
        "[docker]\nsocket = {:?}\nproject = \"cutover-test\"\n\n[app.web]\ninitial = \"blue\"\nblue = [\"docker:app-blue:8000\"]\n\
         health = {{ path = \"/health\", interval = \"200ms\" }}\n",
        engine.socket()
    ));
    let _server = site.run();
    let known = || {
        let status = site.cli(&["status", "--json"]).stdout;
        resolved(&serde_json::from_str(&status).unwrap_or_default())
    };
    eventually("both containers are known", PATIENCE, || {
        (known() == 2).then_some(())
    });
    eventually("they answer", PATIENCE, || {
        let answer = Client::connect(site.address()).ok()?.get("/").ok()?;
        (answer.status == 200).then_some(())
    });

    let stop = Arc::new(AtomicBool::new(false));
    let (address, over) = (site.address(), Arc::clone(&stop));
    let load = std::thread::spawn(move || {
        let (mut sent, mut failed) = (0, Vec::new());
        while !over.load(Ordering::Relaxed) {
            sent += 1;
            match Client::connect(address).map(|mut client| client.get("/")) {
                Ok(Ok(answer)) if answer.status == 200 => {}
                other => failed.push(format!(
                    "{:?}",
                    other.map(|answer| answer.map(|answer| answer.status))
                )),
            }
        }
        (sent, failed)
    });
    // One is stopped: it leaves. One is made anew: it is found. The other is killed: the new one serves.
    let ids = compose.run(&["ps", "-q", "app-blue"]).expect(0).out;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    engine.docker(&["stop", ids[0]]).expect(0);
    eventually("one is left", PATIENCE, || (known() == 1).then_some(()));
    engine
        .docker(&[
            "run",
            "-d",
            "--network",
            "cutover-test_default",
            "--label",
            "com.docker.compose.project=cutover-test",
            "--label",
            "com.docker.compose.service=app-blue",
            "stand-in:1",
            "--name",
            "blue",
            "--port",
            "8000",
        ])
        .expect(0);
    eventually("the new one is known", PATIENCE, || (known() == 2).then_some(()));
    eventually("the new one is healthy", PATIENCE, || {
        let status = site.cli(&["probe", "blue"]);
        (status.code == 0 && !status.stdout.contains('✖')).then_some(())
    });
    engine.docker(&["stop", ids[1]]).expect(0);
    eventually("the other has left", PATIENCE, || (known() == 1).then_some(()));
    stop.store(true, Ordering::Relaxed);
    let (sent, failed) = load.join().expect("the load");
    say(&format!(
        "containers of a real engine: two stopped, one new under load: {sent} requests, {} failed",
        failed.len()
    ));
    assert!(failed.is_empty(), "{failed:?}");
}

/// How many addresses the endpoints of a status have.
fn resolved(status: &serde_json::Value) -> usize {
    match status {
        serde_json::Value::Object(map) => {
            let of_key = |(key, value): (&String, &serde_json::Value)| match value.as_array() {
                Some(all) if key == "resolved" => all.len(),
                _ => resolved(value),
            };
            map.iter().map(of_key).sum()
        }
        serde_json::Value::Array(all) => all.iter().map(resolved).sum(),
        _ => 0,
    }
}
