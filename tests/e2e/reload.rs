//! The config file as editors, Kubernetes and accidents change it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::backend::Backend;
use crate::figures::alone;
use crate::judge::Color;
use crate::server::{PATIENCE, Site, eventually, simple};

/// Both colors, and a header of the answers that tells which file is in use.
struct Bench {
    blue: Backend,
    green: Backend,
    site: Site,
}

impl Bench {
    fn new() -> Self {
        let (blue, green) = (Backend::says("blue"), Backend::says("green"));
        let site = Site::simple(blue.address, green.address);
        let bench = Self { blue, green, site };
        bench.site.write(&bench.rest("first"));
        bench
    }

    fn rest(&self, mark: &str) -> String {
        let more = format!("[app.web.headers.response]\nset = {{ \"x-mark\" = \"{mark}\" }}\n");
        simple(
            &self.blue.address.to_string(),
            &self.green.address.to_string(),
            &more,
        )
    }

    fn text(&self, mark: &str) -> String {
        self.site.text(&self.rest(mark))
    }

    /// The mark of the file in use, from a real answer.
    fn mark(&self) -> String {
        let answer = self.site.client().get("/").expect("an answer");
        assert_eq!(answer.status, 200);
        answer.header("x-mark").unwrap_or("none").to_owned()
    }

    #[track_caller]
    fn becomes(&self, mark: &str) {
        eventually(&format!("the file with mark {mark} is in use"), PATIENCE, || {
            (self.mark() == mark).then_some(())
        });
    }
}

#[test]
fn an_editor_that_saves_by_rename_is_noticed() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    assert_eq!(bench.mark(), "first");
    for round in 0..3 {
        // As vim does: the old file moves away, the new one takes its name.
        let backup = bench.site.path().join("cutover.toml~");
        std::fs::rename(bench.site.config(), &backup).unwrap();
        std::fs::write(bench.site.config(), bench.text(&format!("vim{round}"))).unwrap();
        std::fs::remove_file(&backup).unwrap();
        bench.becomes(&format!("vim{round}"));
        // As `write` does here: a new file over the old name.
        bench.site.write(&bench.rest(&format!("rename{round}")));
        bench.becomes(&format!("rename{round}"));
        // As `echo >` does: in place.
        std::fs::write(bench.site.config(), bench.text(&format!("place{round}"))).unwrap();
        bench.becomes(&format!("place{round}"));
    }
    server.stop();
}

#[test]
fn a_kubernetes_symlink_swap_is_noticed() {
    let _machine = alone();
    let bench = Bench::new();
    // A mounted ConfigMap: cutover.toml → ..data/cutover.toml, ..data → ..2026_1
    let mount = bench.site.path().join("mounted");
    let version = |name: &str, mark: &str| {
        std::fs::create_dir_all(mount.join(name)).unwrap();
        std::fs::write(mount.join(name).join("cutover.toml"), bench.text(mark)).unwrap();
    };
    version("..2026_1", "one");
    symlink("..2026_1", mount.join("..data")).unwrap();
    symlink("..data/cutover.toml", mount.join("cutover.toml")).unwrap();
    let path = mount.join("cutover.toml");
    let server = bench
        .site
        .launch(&["run".as_ref(), "-c".as_ref(), path.as_os_str()], &[])
        .expect("starts");
    assert_eq!(bench.mark(), "one");
    for round in 2..5 {
        let name = format!("..2026_{round}");
        version(&name, &format!("k8s{round}"));
        swap(&mount, &name);
        bench.becomes(&format!("k8s{round}"));
        std::fs::remove_dir_all(mount.join(format!("..2026_{}", round - 1))).unwrap();
    }
    // The removal of the old version was no news.
    assert_eq!(bench.mark(), "k8s4");
    server.stop();
}

/// What the kubelet does: a link beside, renamed over `..data`.
fn swap(mount: &Path, to: &str) {
    symlink(to, mount.join("..data_tmp")).unwrap();
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
}

#[test]
fn a_bad_half_written_or_deleted_file_changes_nothing_and_is_told() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    let good = bench.text("second");
    for bad in [&good[..good.len() / 2], "", "nonsense = ["] {
        std::fs::write(bench.site.config(), bad).unwrap();
        bench.site.cli(&["reload"]).expect(3).says(&["cutover.toml"]);
        assert_eq!(bench.mark(), "first", "a bad file changed something: {bad:?}");
        bench.site.cli(&["status"]).expect(0).says(&["cutover.toml"]);
        assert!(
            metric(&bench.site, "cutover_config_last_reload_successful").ends_with(" 0"),
            "the metric shows it"
        );
    }
    std::fs::remove_file(bench.site.config()).unwrap();
    bench.site.cli(&["reload"]).expect(3);
    assert_eq!(bench.mark(), "first");
    // Switching does not need the file.
    bench.site.cli(&["switch", "green"]).expect(0);
    // Written in two parts, the second later: at the end the whole is in use.
    std::fs::write(bench.site.config(), &good[..good.len() / 2]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bench.mark(), "first");
    std::fs::write(bench.site.config(), &good).unwrap();
    bench.becomes("second");
    eventually("the metric shows the good file", PATIENCE, || {
        metric(&bench.site, "cutover_config_last_reload_successful")
            .ends_with(" 1")
            .then_some(())
    });
    assert_eq!(
        bench.site.admin().state().0,
        Color::Green,
        "a reload is no switch"
    );
    server.stop();
}

/// The line of a metric without labels.
fn metric(site: &Site, name: &str) -> String {
    let mut client = crate::wire::Client::connect_unix(&site.socket()).expect("the admin socket");
    let bytes = crate::wire::request("GET", "/metrics", &[("host", "localhost")], None);
    let text = client.exchange(&bytes).expect("metrics").text();
    let line = text
        .lines()
        .find(|line| line.split([' ', '{']).next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

#[test]
fn a_storm_of_writes_ends_with_the_last_file() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    for round in 0..300 {
        std::fs::write(bench.site.config(), bench.text(&format!("storm{round}"))).unwrap();
    }
    bench.becomes("storm299");
    server.stop();
}

#[test]
fn sighup_reads_the_file_again() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    std::fs::write(bench.site.config(), bench.text("hup")).unwrap();
    server.signal(Signal::HUP);
    bench.becomes("hup");
    server.stop();
}

#[test]
fn reload_answers_with_the_verdict_and_the_difference() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    let (_, generation) = bench.site.admin().state();
    let other = Backend::says("green");
    let text = bench
        .rest("first")
        .replace(&bench.green.address.to_string(), &other.address.to_string());
    bench.site.write(&text);
    bench.site.cli(&["reload"]).expect(0);
    eventually("the new endpoint is known", PATIENCE, || {
        let (_, now) = bench.site.admin().state();
        (now > generation).then_some(())
    });
    bench.site.cli(&["switch", "green"]).expect(0);
    bench.site.client().get("/").expect("an answer");
    assert!(
        other.accepted.load(std::sync::atomic::Ordering::Relaxed) > 0,
        "the new green serves"
    );
    // The listener is fixed while the process lives, and that is said.
    let moved = bench
        .text("first")
        .replace(&bench.site.address().to_string(), "127.0.0.1:1");
    std::fs::write(bench.site.config(), moved).unwrap();
    bench.site.cli(&["reload"]).says(&["restart"]);
    assert_eq!(bench.site.client().get("/").expect("an answer").status, 200);
    server.stop();
}

#[test]
fn metrics_pass_promtool() {
    let _machine = alone();
    let bench = Bench::new();
    let server = bench.site.run();
    bench.mark();
    bench.site.cli(&["switch", "green"]).expect(0);
    bench.mark();
    let mut client = crate::wire::Client::connect_unix(&bench.site.socket()).expect("the admin socket");
    let bytes = crate::wire::request("GET", "/metrics", &[("host", "localhost")], None);
    let text = client.exchange(&bytes).expect("metrics").text();
    assert!(
        promtool(&text).is_ok(),
        "{}\n{text}",
        promtool(&text).unwrap_err()
    );
    assert!(
        promtool("# TYPE a counter\na 1\n").is_err(),
        "promtool can say no"
    );
    server.stop();
}

fn promtool(text: &str) -> Result<(), String> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: tests/run installs it");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}
