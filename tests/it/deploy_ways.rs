//! The ways of `cutover deploy` to a color: in steps instead of at once; to apps behind TLS and HTTP/2; by what its commands find.

use http::Response;
use rustix::process::Signal;

use crate::harness::desk::Desk;
use crate::harness::service::{Service, Speaks, whole};
use crate::harness::tls::{Authority, Kind};
use crate::harness::{Backend, Proxy, Setup, until};

const IN_STEPS: &str = "\n[app.web.deploy]\nsteps = [\"healthy\", \"rollout\", \"bake\"]\n";

/// A share of 20 %, its pause, its gates, then all of it.
fn shifting(blue: &Backend, green: &Backend, pause: &str, gates: &str) -> Proxy {
    let steps = format!("[{{ weight = 20, pause = \"{pause}\" }}, {{ weight = 100 }}]");
    let lines = format!(
        "guard.bake = \"0\"\nrollout = {{ steps = {steps}, gate = {gates} }}\n[app.web.gate.never]\nrun = \"false\"\n"
    );
    Setup::new().colors(blue, green, &lines).start()
}

fn share(proxy: &Proxy) -> u64 {
    proxy.app()["colors"]["green"]["share"].as_u64().unwrap()
}

#[test]
fn a_rollout_is_a_step_that_somebody_lets_go_on() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = shifting(&blue, &green, "approval", "[]");
    let desk = Desk::at(&proxy, &blue, &green, IN_STEPS);
    // Somebody elsewhere, although the deploy holds the app.
    let running = desk.begin(&["deploy", "green", "--revision", "v2"]);
    until("green has its first share", || share(&proxy) == 20);
    desk.cutover(&["rollout", "promote"]).expect(0);
    running.end().expect(0).says(&[
        "[2/3] rollout green … ✓",
        "green has all of it",
        "green is active",
    ]);
    assert_eq!(proxy.says(), "green");
    assert_eq!(proxy.app()["colors"]["green"]["revision"], "v2");
    // The deploy itself, told so before.
    desk.cutover(&["deploy", "blue", "--auto-switch"]).expect(0);
    assert_eq!(proxy.says(), "blue");
    // Whoever sits there; who says no leaves it as it is.
    desk.typed("deploy green", "n\n").expect(11).says(&[
        "shifting, 20 %, step 1 of 2, waits for `cutover rollout promote`",
        "green has 20 %. Go on? [y/N]",
        "--from rollout",
    ]);
    assert_eq!(share(&proxy), 20);
    desk.typed("deploy green --from rollout", "y\n")
        .expect(0)
        .says(&["it is under way already"]);
    assert_eq!(proxy.says(), "green");
    // Taken up where it was made already: nothing is replaced.
    desk.cutover(&["deploy", "green", "--yes", "--from", "rollout"])
        .expect(0)
        .says(&["green was active already"]);
}

#[test]
fn a_rollout_that_is_left_ended_or_taken_back_says_so() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = shifting(&blue, &green, "approval", "[]");
    let desk = Desk::at(&proxy, &blue, &green, IN_STEPS);
    let running = desk.begin(&["deploy", "green"]);
    until("green has its first share", || share(&proxy) == 20);
    running.signal(Signal::INT);
    running.end().expect(130).says(&[
        "the rollout goes on at 20 %: `cutover rollout abort` ends it",
        "--from rollout",
    ]);
    assert_eq!(share(&proxy), 20);
    let running = desk.begin(&["deploy", "green", "--from", "rollout"]);
    until("it is watched again", || {
        proxy.app()["lease"]["what"].to_string().contains("rollout")
    });
    desk.cutover(&["rollout", "abort"]).expect(0);
    running
        .end()
        .expect(4)
        .says(&["the rollout to green was ended", "blue serves, unchanged"]);
    assert_eq!(share(&proxy), 0);
    drop(proxy);

    let proxy = shifting(&blue, &green, "100ms", "[\"never\"]");
    let desk = Desk::at(&proxy, &blue, &green, IN_STEPS);
    desk.cutover(&["deploy", "green", "--auto-switch"])
        .expect(9)
        .says(&["the share of green was taken back", "blue serves, unchanged"]);
    assert_eq!(proxy.says(), "blue");

    let impatient = format!("{IN_STEPS}rollout.timeout = \"1500ms\"\n");
    let proxy = shifting(&blue, &green, "approval", "[]");
    let desk = Desk::at(&proxy, &blue, &green, &impatient);
    desk.cutover(&["deploy", "green"])
        .expect(5)
        .says(&["`cutover wait` waits on, `cutover rollout abort` ends it"]);
}

#[test]
fn probes_and_webhooks_speak_what_the_app_speaks() {
    let authority = Authority::new();
    authority.issue("app", &["app.test", "localhost"], Kind::Ecdsa);
    let tells = |speaks| {
        Service::new(speaks, |request| async move {
            let host = request.headers().get("host").and_then(|host| host.to_str().ok());
            let authority = request.uri().authority().map(ToString::to_string);
            let host = host.map(str::to_owned).or(authority).unwrap_or_default();
            Response::new(whole(format!(
                "{:?} {} {host}",
                request.version(),
                request.uri().path()
            )))
        })
    };
    let secure = tells(Speaks::Tls(authority.server("app", &[], false)));
    let clear = tells(Speaks::H2c);
    let endpoints = format!(
        "blue = [\"h2c://{}\"]\ngreen = [\"https://{}\"]\nhealth.path = \"/healthz\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"\n\
         headers.host = \"app.test\"\ntls.ca = {:?}\n",
        clear.address,
        secure.address,
        authority.path("ca.pem").display().to_string()
    );
    let app = format!("[app.web]\ninitial = \"blue\"\n{endpoints}");
    let proxy = Setup::new().toml(&app).start();
    let (blue, green) = (Backend::blue(), Backend::green());
    let desk = Desk::at(&proxy, &blue, &green, "");
    let file = |version: &str, more: &str| {
        let probe = format!(
            "[[app.web.deploy.smoke]]\nrequest = \"GET /who\"\nexpect.body_regex = \"^{version} /who app.test$\"\n"
        );
        desk.write(
            "cutover.toml",
            &format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{app}{more}{probe}"),
        );
    };
    file("HTTP/1.1", "");
    desk.cutover(&["smoke", "green"])
        .expect(0)
        .says(&["GET /who → 200 in"]);
    let url = format!("https://{}", secure.address);
    desk.cutover(&[
        "smoke",
        "green",
        "--",
        "sh",
        "-c",
        "echo it is $CUTOVER_PREVIEW_URL",
    ])
    .expect(0)
    .says(&[&format!("it is {url}")]);
    desk.cutover(&["deploy", "--yes", "--until", "switch"]).expect(0);
    file("HTTP/2.0", "");
    desk.cutover(&["smoke", "blue"])
        .expect(0)
        .says(&["GET /who → 200 in"]);
    desk.cutover(&["smoke", "green"])
        .expect(4)
        .says(&["the body does not match", "body: HTTP/1.1 /who app.test"]);

    // Who is not believed is not asked; by a webhook neither, whose authorities are the system's.
    let path = desk.path("cutover.toml");
    let doubted = std::fs::read_to_string(&path)
        .unwrap()
        .replace("headers.host = \"app.test\"", "headers.host = \"other.test\"");
    std::fs::write(&path, doubted).unwrap();
    desk.cutover(&["smoke", "green"])
        .expect(4)
        .says(&["certificate refused", "not for other.test"]);
    let hook = format!(
        "[app.web.deploy]\nsteps = [\"tell\"]\ntell.webhook = \"https://localhost:{}/hook\"\n",
        secure.address.port()
    );
    file("x", &hook);
    desk.cutover(&["deploy", "blue"])
        .expect(1)
        .says(&["certificate refused: its issuer is unknown"]);
}

#[test]
fn commands_find_the_listener_and_a_token_for_their_color() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ncolor = \"standby\"\n";
    let proxy = Setup::new()
        .listeners(listeners)
        .colors(&blue, &green, "preview.header = \"x-color\"\n")
        .start();
    let ask = "curl -fsS -H \"$CUTOVER_PREVIEW_HEADER: $CUTOVER_PREVIEW_TOKEN\" http://127.0.0.1:PORT/ > by-token; \
               curl -fsS \"$CUTOVER_PREVIEW_URL/\" > by-url; echo \"$CUTOVER_PREVIEW_URL\" > url; echo \"it is $CUTOVER_PREVIEW_TOKEN\"";
    let ask = ask.replace("PORT", &proxy.address().port().to_string());
    let steps = format!(
        "\n[app.web.deploy]\nsteps = [\"ask\", \"switch\"]\nask = {{ shell = true, run = '''{ask}''' }}\n"
    );
    let desk = Desk::at(&proxy, &blue, &green, &steps);
    let file = std::fs::read_to_string(desk.path("cutover.toml")).unwrap();
    let own = format!(
        "[[listener]]\naddress = \"{}\"\n[[listener]]\naddress = \"{}\"\ncolor = \"standby\"\n",
        proxy.tcp(0),
        proxy.tcp(1)
    );
    let file = file.replace("[[listener]]\naddress = \"127.0.0.1:0\"\n", &own);
    let file = file.replace("health.path", "preview.header = \"x-color\"\nhealth.path");
    desk.write("cutover.toml", &file);
    desk.cutover(&["deploy", "green"]).expect(0).says(&["it is ***"]);
    for name in ["by-token", "by-url"] {
        assert_eq!(desk.read(name), "green", "{name}");
    }
    assert_eq!(desk.read("url").trim(), format!("http://{}", proxy.tcp(1)));
    assert_eq!(proxy.says(), "green");
    // In place the standby's listener would be the other color: the endpoint is named instead.
    desk.cutover(&["deploy", "green", "--in-place", "--until", "ask"])
        .expect(0);
    assert_eq!(desk.read("url").trim(), format!("http://{}", green.address()));
    assert_eq!(desk.read("by-token"), "green");
}

#[test]
fn the_question_shows_how_the_gates_stand() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let gates = "switch.require = [\"healthy\", \"calm\"]\n[app.web.gate.calm]\nrun = \"test ! -e FILE\"\n";
    let folder = tempfile::tempdir().unwrap();
    let storm = folder.path().join("storm");
    let gates = gates.replace("FILE", &storm.display().to_string());
    let proxy = Setup::new().colors(&blue, &green, &gates).start();
    let desk = Desk::at(&proxy, &blue, &green, "");
    let asked = desk
        .typed("deploy green", "n\n")
        .expect(11)
        .says(&["gate calm: pass", "Switch traffic to green? [y/N]"]);
    assert!(
        asked.out.contains("\r\x1b[2K⠋"),
        "a spinner, at a terminal: {asked:#?}"
    );
    std::fs::write(&storm, "").unwrap();
    desk.typed("deploy green", "y\n").expect(4).says(&[
        "as it stands this would be refused",
        "gate calm (run): fail",
        "blue serves, unchanged",
    ]);
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 1));
}

#[test]
fn a_webhook_is_told_of_its_step_and_its_word_counts() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let hook = Backend::handler(|request| match request.target() {
        "/fine" => b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 409 No\r\nContent-Length: 11\r\nConnection: close\r\n\r\nnot\nallowed".to_vec(),
    });
    let steps = |path: &str| {
        let url = format!("http://{}/{path}", hook.address());
        format!("\n[app.web.deploy]\nsteps = [\"tell\", \"switch\"]\ntell.webhook = \"{url}\"\n")
    };
    Desk::at(&proxy, &blue, &green, &steps("no"))
        .cutover(&["deploy", "--revision", "v2"])
        .expect(1)
        .says(&["/no answered 409", "not allowed", "--from tell"]);
    assert_eq!(proxy.says(), "blue");
    Desk::at(&proxy, &blue, &green, &steps("fine"))
        .cutover(&["deploy", "--revision", "v2"])
        .expect(0)
        .says(&["[1/2] tell … ✓"]);
    assert_eq!(proxy.says(), "green");
    let told: serde_json::Value = serde_json::from_str(&hook.requests()[1].text()).unwrap();
    let wanted = serde_json::json!({
        "schema": "cutover.hook/v1", "app": "web", "step": "tell", "color": "green", "other": "blue", "revision": "v2",
    });
    assert_eq!(told, wanted);
}

/// A deploy that dies in a step leaves the app free and the traffic known; the same step takes it up again.
#[test]
fn a_deploy_killed_in_any_step_is_taken_up_in_that_step() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go").display().to_string();
    let waits = format!("until [ -e {go} ]; do sleep 0.02; done");
    let server = format!(
        "guard.bake = \"1h\"\nswitch.require = [\"healthy\", \"slow\"]\n[app.web.gate.slow]\nrun = \"{waits}\"\n"
    );
    let steps = format!(
        "\n[app.web.deploy]\nsteps = [\"backup\", \"healthy\", \"smoke\", \"switch\", \"bake\"]\nlease = \"1s\"\n\
         backup = {{ shell = true, run = \"{waits}\" }}\nhealthy.settle = \"1h\"\nsmoke = {{ shell = true, run = \"{waits}\" }}\n"
    );
    for step in ["backup", "healthy", "smoke", "switch", "bake"] {
        let _ = std::fs::remove_file(&go);
        let proxy = Setup::new().colors(&blue, &green, &server).start();
        let desk = Desk::at(&proxy, &blue, &green, &steps);
        let doing = || proxy.app()["lease"]["what"].to_string();
        if step == "bake" {
            std::fs::write(&go, "").unwrap();
            desk.cutover(&[
                "deploy", "green", "--yes", "--from", "switch", "--until", "switch",
            ])
            .expect(0);
        }
        let killed = desk.begin(&["deploy", "green", "--yes", "--from", step]);
        until("it is in the step", || doing().contains(&format!("step {step}")));
        if step == "switch" {
            until("the switch is asked for", || {
                proxy.app()["operation"] != serde_json::Value::Null
            });
        }
        killed.signal(Signal::KILL);
        drop(killed);
        std::fs::write(&go, "").unwrap();
        until("its lease ran out", || doing() == "null");
        match step {
            "bake" => assert_eq!(proxy.says(), "green"),
            // The server had it already: it is made, or was never begun; `status` tells, and both go on.
            "switch" => until("the switch is over", || {
                proxy.app()["operation"] == serde_json::Value::Null
            }),
            _ => assert_eq!(proxy.says(), "blue"),
        }
        let file = std::fs::read_to_string(desk.path("cutover.toml")).unwrap();
        desk.write("cutover.toml", &file.replace("settle = \"1h\"", "settle = \"0\""));
        let until_switch = if step == "bake" { "bake" } else { "switch" };
        let again = desk.begin(&[
            "deploy",
            "green",
            "--yes",
            "--from",
            step,
            "--until",
            until_switch,
        ]);
        if step == "bake" {
            until("it watches again", || doing().contains("step bake"));
            again.signal(Signal::INT);
            again.end().expect(130).says(&["--from bake"]);
        } else {
            again.end().expect(0);
        }
        assert_eq!(proxy.says(), "green", "{step}");
    }
}

#[test]
fn status_says_when_the_file_and_reality_are_apart() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "active = \"blue\"\n").start();
    let desk = Desk::at(&proxy, &blue, &green, "");
    let apart = "the file says active = blue, reality differs: `cutover switch blue`";
    let said = desk.cutover(&["status"]).expect(0);
    assert!(!said.out.contains("reality differs"), "{said:#?}");
    desk.cutover(&["deploy", "--yes", "--until", "switch"]).expect(0);
    desk.cutover(&["status"]).expect(0).says(&[apart]);
    desk.cutover(&["rollback"]).expect(0);
    let said = desk.cutover(&["status"]).expect(0);
    assert!(!said.out.contains("reality differs"), "{said:#?}");
}
