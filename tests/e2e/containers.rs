//! The image and `config/compose.yaml` in a real engine: Dockerfile, health check, signals, names, volumes as Docker has them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::{Compose, Engine};
use crate::figures::{alone, say};
use crate::judge::{Color, Reply, Switch, judge};
use crate::load::{Load, Plan};
use crate::ports;
use crate::random::Random;
use crate::server::{PATIENCE, eventually};

const IMAGE: &str = "cutover-under-test";
const APP: &str = "stand-in:1";

/// An engine with our image and the apps', and the project of `config/compose.yaml` in it.
fn project(engine: &Engine) -> (Compose<'_>, SocketAddr) {
    engine.build(IMAGE);
    engine.import("python", APP, &["ENTRYPOINT [\"/bin/sh\", \"/standin.sh\"]"]);
    let folder = engine.path().join("config");
    std::fs::create_dir_all(folder.join("compose")).expect("a folder");
    for file in ["compose.yaml", "compose/cutover.toml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
        std::fs::copy(from, folder.join(file)).expect("copy");
    }
    let port = ports::free();
    let compose = Compose {
        engine,
        folder,
        environment: vec![
            ("CUTOVER_IMAGE", IMAGE.to_owned()),
            ("CUTOVER_PORT", format!("127.0.0.1:{port}")),
            ("APP_IMAGE_BLUE", APP.to_owned()),
            ("APP_IMAGE_GREEN", APP.to_owned()),
        ],
    };
    (compose, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn the_compose_file_runs_in_an_engine() {
    let _machine = alone();
    let Some(engine) = Engine::start("the image and config/compose.yaml") else {
        return;
    };
    let (compose, address) = project(&engine);
    compose.run(&["up", "-d", "--no-build"]).expect(0);
    compose.healthy("cutover");

    // What the files promise of the container.
    for (template, is) in [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.Config.User}}", "10001:10001"),
        ("{{.Config.StopSignal}}", "SIGTERM"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
    ] {
        assert_eq!(compose.inspect("cutover", template), is, "{template}");
    }
    let id = compose.run(&["exec", "-T", "cutover", "id", "-u"]).expect(0);
    assert_eq!(id.last(), "10001");
    assert_ne!(
        compose
            .run(&["exec", "-T", "cutover", "touch", "/usr/written"])
            .code,
        0,
        "its root is read-only"
    );
    compose.cutover(&["check"]).expect(0);

    let before = compose.inspect("app-blue", ADDRESS);

    // A switch, the old color's container stopped as soon as it is drained: no request fails, none is late.
    eventually("green is healthy", PATIENCE, || {
        (compose.cutover(&["probe", "green"]).code == 0).then_some(())
    });
    compose.cutover(&["switch", "blue"]).expect(0);
    let plan = Plan::to(address, 8);
    let mut random = Random::seeded("containers");
    let load = Load::start(&plan, &mut random);
    load.flow(200);
    let first = switch(&compose, Color::Green);
    compose
        .cutover(&["wait-drained", "blue", "--timeout", "60s"])
        .expect(0);
    compose.run(&["stop", "app-blue"]).expect(0);
    load.flow(200);

    // Blue is made anew, at another address, and is found by its name.
    compose.run(&["rm", "-f", "-s", "app-blue"]).expect(0);
    squat(&engine, &compose);
    compose.run(&["up", "-d", "--no-build", "app-blue"]).expect(0);
    let after = compose.inspect("app-blue", ADDRESS);
    assert!(!before.is_empty() && !after.is_empty());
    assert_ne!(before, after, "somebody else has the old address");
    let began = Instant::now();
    eventually("the new blue is found", PATIENCE * 3, || {
        (compose.cutover(&["probe", "blue"]).code == 0).then_some(())
    });
    let found = began.elapsed();
    let second = switch(&compose, Color::Blue);
    load.flow(200);
    let verdict = judge(Color::Blue, &[first, second], &load.stop());
    say(&format!(
        "compose in an engine: two switches, a container stopped and one replaced ({before} → {after}, found after {:.1} s): \
         {} requests, {} failed, {} late",
        found.as_secs_f64(),
        verdict.requests,
        verdict.failed.len(),
        verdict.late.len()
    ));
    verdict.assert_clean();
}

#[test]
fn the_image_stops_politely_and_remembers() {
    let _machine = alone();
    let Some(engine) = Engine::start("the image's signals and its volume") else {
        return;
    };
    let (compose, address) = project(&engine);

    // Nothing to talk to: the health check's command says so by its exit code.
    engine
        .docker(&["run", "--rm", "--network", "none", IMAGE, "health"])
        .expect(7);
    compose.run(&["up", "-d", "--no-build"]).expect(0);
    serves(&compose);
    eventually("green is healthy", PATIENCE, || {
        (compose.cutover(&["probe", "green"]).code == 0).then_some(())
    });
    compose.cutover(&["switch", "green"]).expect(0);

    // SIGTERM as `docker stop` sends it: the end is clean, and within the grace.
    let id = compose.container("cutover");
    let began = Instant::now();
    compose.run(&["stop", "cutover"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(39), "it had to be killed");
    let code = engine
        .docker(&["inspect", "--format", "{{.State.ExitCode}}", &id])
        .expect(0);
    assert_eq!(code.last(), "0", "{}", code.text);

    // A new container on the old volume; then one whose predecessor was killed.
    compose.run(&["rm", "-f", "cutover"]).expect(0);
    for how in ["stopped", "killed"] {
        compose.run(&["up", "-d", "--no-build", "cutover"]).expect(0);
        serves(&compose);
        assert!(compose.cutover(&["status", "-q"]).text.contains("green"), "{how}");
        let mut client = crate::wire::Client::connect(address).expect("connect");
        assert_eq!(
            client.get("/").expect("an answer").json()["color"],
            "green",
            "{how}"
        );
        let id = compose.container("cutover");
        engine.docker(&["kill", "--signal", "KILL", &id]).expect(0);
        compose.run(&["rm", "-f", "-s", "cutover"]).expect(0);
    }
}

/// By the command of the health check; the engine itself looks every 10 s only.
fn serves(compose: &Compose<'_>) {
    eventually("cutover answers", PATIENCE * 2, || {
        (compose.cutover(&["health"]).code == 0).then_some(())
    });
}

const ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

/// Take the lowest free address of the project's network, so that the next container gets another one.
fn squat(engine: &Engine, compose: &Compose<'_>) {
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
    let network = compose.inspect("cutover", networks);
    let sleep = [
        "--entrypoint",
        "/usr/bin/python3",
        APP,
        "-c",
        "import time; time.sleep(600)",
    ];
    let mut args = vec!["run", "-d", "--network", &network];
    args.extend(sleep);
    engine.docker(&args).expect(0);
}

fn switch(compose: &Compose<'_>, to: Color) -> Switch {
    let sent = Instant::now();
    compose.cutover(&["switch", to.name()]).expect(0);
    Switch {
        sent,
        replied: Instant::now(),
        to,
        reply: Reply::Done,
    }
}
