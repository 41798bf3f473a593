//! The bad input that issue 2 lists, each as a real process meets it.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::backend::Backend;
use crate::figures::{alone, say};
use crate::judge::Color;
use crate::server::{PATIENCE, Site, cli_in, eventually, simple};
use crate::wire::Client;

/// Where nothing listens, in two colors.
const NOBODY: [&str; 2] = ["127.0.0.1:9", "127.0.0.1:10"];

#[test]
fn a_wrong_missing_or_binary_config_is_named_with_its_place() {
    let _machine = alone();
    let site = Site::simple(NOBODY[0], NOBODY[1]);
    let config = site.config();
    let config = config.to_str().unwrap();
    let check = |content: &[u8], words: &[&str]| {
        std::fs::write(config, content).unwrap();
        cli_in(site.path(), &["check", "-c", config])
            .expect(3)
            .says(words);
        let end = site.try_run().err().expect("no start with a bad config");
        assert_eq!(end.code, Some(3), "{}", end.stderr);
        assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    };
    check(b"[[listener]\naddress = 1\n", &["cutover.toml:1"]);
    check(b"", &["listener", "app"]);
    check(b"\x7fELF\x00\x01\x02\xff\xfe\x00binary", &["cutover.toml"]);
    check(
        b"[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nbluee = [\"127.0.0.1:1\"]\ngreen = [\"nonsense\"]\n[app.web.drain]\nhttp = \"soon\"\n",
        // All mistakes at once, each with its line.
        &["cutover.toml:4", "blue", "cutover.toml:5", "nonsense", "cutover.toml:7", "soon"],
    );
    // A key that a later version may have is unknown to this one.
    check(
        b"[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"127.0.0.1:1\"]\n[app.web.rate_limit]\nrequests = 5\n",
        &["cutover.toml:5", "rate_limit"],
    );
    std::fs::remove_file(config).unwrap();
    cli_in(site.path(), &["check", "-c", config])
        .expect(3)
        .says(&[config]);
    cli_in(site.path(), &["check", "-c", site.path().to_str().unwrap()]).expect(3);
}

#[test]
fn a_config_of_100_mb_is_refused_at_once() {
    let _machine = alone();
    let site = Site::simple(NOBODY[0], NOBODY[1]);
    let mut file = std::io::BufWriter::new(std::fs::File::create(site.config()).unwrap());
    let line = [b'#'; 1023];
    for _ in 0..100 * 1024 {
        file.write_all(&line).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.into_inner().unwrap();
    let started = std::time::Instant::now();
    cli_in(site.path(), &["check", "-c", site.config().to_str().unwrap()])
        .expect(3)
        .says(&["cutover.toml"]);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        started.elapsed()
    );
}

#[test]
fn unknown_names_are_refused_and_the_known_ones_told() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let server = site.run();
    site.cli(&["switch", "purple"]).expect(2).says(&["purple"]);
    let unknown = site.cli(&["-a", "wab", "switch", "green"]).says(&["wab", "web"]);
    assert!(matches!(unknown.code, 1 | 2), "{unknown:?}");
    site.cli(&["switch", "green", "--expect-generation", "999"])
        .expect(6)
        .says(&["999"]);
    site.cli(&["switch", "green", "--expect-generation", "many"])
        .expect(2);
    let gone = site.cli(&["rollback", "--to", "999"]);
    assert!(matches!(gone.code, 1 | 2 | 10), "{gone:?}");
    let mut admin = site.admin();
    for (path, body, statuses) in [
        (
            "/v1/apps/web/switch",
            serde_json::json!({ "to": "purple" }),
            [400, 422],
        ),
        (
            "/v1/apps/wab/switch",
            serde_json::json!({ "to": "green" }),
            [404, 404],
        ),
        (
            "/v1/apps/web/switch",
            serde_json::json!({ "too": "green" }),
            [400, 422],
        ),
        (
            "/v1/apps/web/weight",
            serde_json::json!({ "green": 101 }),
            [400, 422],
        ),
        ("/v1/apps/web/nothing", serde_json::json!({}), [404, 405]),
    ] {
        let (status, problem) = admin.post(path, &body).expect("an answer");
        assert!(statuses.contains(&status), "{path} {body}: {status} {problem}");
        assert!(
            problem["code"].is_string(),
            "a stable code: {path} {body}: {problem}"
        );
    }
    assert_eq!(site.admin().state(), (Color::Blue, 1), "nothing moved");
    server.stop();
}

#[test]
fn with_no_file_descriptors_left_it_waits_and_recovers() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let config = site.config();
    let mut server = site
        .launch(
            &["run".as_ref(), "-c".as_ref(), config.as_os_str()],
            &["-n", "128"],
        )
        .expect("starts with 128");
    let crowd: Vec<TcpStream> = (0..200)
        .filter_map(|_| TcpStream::connect(site.address()).ok())
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.ended().is_none(), "it ended\n{}", server.stderr());
    let burned = cpu_ticks(server.pid());
    std::thread::sleep(Duration::from_secs(1));
    let burned = cpu_ticks(server.pid()) - burned;
    assert!(
        burned < 50,
        "it spins: {burned} of 100 ticks in a second without descriptors"
    );
    drop(crowd);
    eventually("it serves again", PATIENCE, || {
        let mut client = Client::connect(site.address()).ok()?;
        client.get("/").ok().filter(|answer| answer.status == 200)
    });
    eventually("its admin socket answers again", PATIENCE, || {
        (site.cli(&["switch", "green"]).code == 0).then_some(())
    });
    server.stop();
}

/// User and system time of a process in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_socket_of_a_dead_process_is_taken_over_and_one_of_a_living_is_not() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let mut server = site.run();
    server.kill();
    assert!(site.socket().exists(), "kill -9 leaves the socket");
    let server = site.run();

    // The same state directory: refused, with the pid that has it.
    let second = Site::simple(blue.address, green.address);
    let both = second
        .text(&simple(NOBODY[0], NOBODY[1], ""))
        .replace(second.state().to_str().unwrap(), site.state().to_str().unwrap());
    std::fs::write(second.config(), both).unwrap();
    let end = second.try_run().err().expect("the state directory is in use");
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(
        end.stderr.contains(&server.pid().to_string()),
        "it names pid {}:\n{}",
        server.pid(),
        end.stderr
    );

    // Another state directory, the same socket: refused too, and the living one keeps it.
    let admin = format!(
        "[admin]\nsocket = {:?}\n\n{}",
        site.socket(),
        simple(NOBODY[0], NOBODY[1], "")
    );
    second.write(&admin);
    let end = second.try_run().err().expect("the socket is in use");
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(end.stderr.contains("admin.sock"), "{}", end.stderr);
    site.cli(&["switch", "green"]).expect(0);
    server.stop();
    assert!(!site.socket().exists(), "a clean end takes its socket along");
}

#[test]
fn a_state_directory_that_cannot_be_written_stops_the_start() {
    let _machine = alone();
    let site = Site::simple(NOBODY[0], NOBODY[1]);
    // Root may write anywhere, but not below a file.
    std::fs::write(site.path().join("file"), "").unwrap();
    let below = site.path().join("file/state");
    let text = site
        .text(&simple(NOBODY[0], NOBODY[1], ""))
        .replace(site.state().to_str().unwrap(), below.to_str().unwrap());
    std::fs::write(site.config(), text).unwrap();
    let end = site.try_run().err().expect("no state directory");
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(
        end.stderr.contains("file/state"),
        "it names the path:\n{}",
        end.stderr
    );
    assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
}

/// A small file system of its own, so that it can be full.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "cutover-e2e"])
            .arg(path)
            .output()
            .ok()?;
        done.status.success().then_some(Self(path))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_the_change_and_never_the_traffic() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let state = site.state();
    let Some(_disk) = Disk::mount(&state) else {
        say("full disk: not tried, this user may not mount a tmpfs");
        return;
    };
    let server = site.run();
    site.cli(&["switch", "green"]).expect(0);
    let before = site.admin().state();
    let filler = state.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);
    // `switch` may not use the reserve that is kept for a rollback.
    let mut refused = 0;
    for _ in 0..40 {
        let other = site.admin().state().0.other();
        let answer = site.cli(&["switch", other.name()]);
        if answer.code == 1 {
            refused += 1;
            answer.says(&["space", "nothing changed"]);
            break;
        }
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    assert_eq!(refused, 1, "a full disk was never noticed");
    let state_now = site.admin().state();
    assert_eq!(
        site.client().get("/").expect("traffic goes on").json()["color"],
        state_now.0.name()
    );
    std::fs::remove_file(&filler).unwrap();
    eventually(
        "a change goes through once there is space",
        Duration::from_secs(20),
        || {
            let other = site.admin().state().0.other();
            (site.cli(&["switch", other.name()]).code == 0).then_some(())
        },
    );
    let last = site.admin().state();
    assert!(last.1 > before.1);
    server.signal(Signal::KILL);
    drop(server);
    let server = site.run();
    assert_eq!(site.admin().state(), last, "and it is durable");
    server.stop();
}
