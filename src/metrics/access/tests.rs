#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;

use super::*;

fn record() -> Record<'static> {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_772_366_399_007_999),
        client: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
        scheme: "https",
        method: "GET",
        host: Some(b"shop.example.com"),
        path: b"/cart",
        version: http::Version::HTTP_11,
        status: 200,
        bytes_in: 0,
        bytes_out: 5120,
        duration: Duration::from_micros(1_204_050),
        upstream_duration: Some(Duration::from_micros(90)),
        app: Some("shop"),
        service: Some("web"),
        color: Some(Color::Green),
        endpoint: Some("web-green:8000"),
        request_id: Some(b"r-1"),
        trace_id: None,
        retries: 1,
        error: None,
        user_agent: Some(b"curl/8"),
        referer: Some(b"https://a.example/x?token=secret"),
    }
}

fn json_line(record: &Record<'_>) -> Value {
    let mut out = Vec::new();
    format::json(&mut out, &mut Clock::default(), record);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'));
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

fn combined_line(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    format::combined(&mut out, &mut Clock::default(), record);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_json_line_has_every_field() {
    let wanted = serde_json::json!({
        "time": "2026-03-01T11:59:59.007Z", "method": "GET", "scheme": "https", "host": "shop.example.com", "path": "/cart",
        "proto": "HTTP/1.1", "status": 200, "duration_s": 1.20405, "upstream_duration_s": 0.00009,
        "bytes_in": 0, "bytes_out": 5120, "client_ip": "192.0.2.7", "app": "shop", "service": "web",
        "color": "green", "endpoint": "web-green:8000", "request_id": "r-1", "trace_id": null, "retry": 1,
        "error": null, "user_agent": "curl/8", "referer": "https://a.example/x"
    });
    let line = json_line(&record());
    assert_eq!(line, wanted);
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&line), keys(&wanted));
}

#[test]
fn what_is_absent_is_null_and_keeps_its_key() {
    let line = json_line(&Record {
        client: None,
        scheme: "http",
        method: "",
        host: None,
        path: b"",
        upstream_duration: None,
        app: None,
        service: None,
        color: None,
        endpoint: None,
        request_id: None,
        user_agent: None,
        referer: None,
        error: Some("client reset"),
        ..record()
    });
    assert_eq!(line.as_object().unwrap().len(), 22);
    assert_eq!((&line["client_ip"], &line["color"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&line["path"], &line["error"]),
        (&"".into(), &"client reset".into())
    );
}

#[test]
fn any_bytes_are_valid_json() {
    let every: Vec<u8> = (0..=255).collect();
    let line = json_line(&Record {
        user_agent: Some(&every),
        ..record()
    });
    let wanted: String = String::from_utf8_lossy(&every).into_owned();
    assert_eq!(line["user_agent"], wanted);
    for bad in [
        &b"\xE2\x82"[..],
        b"\xFF\"",
        b"\\\xC0\x80\n",
        b"\xED\xA0\x80",
        b"\xF0\x9F\x98\x80",
    ] {
        let line = json_line(&Record {
            path: bad,
            host: Some(bad),
            ..record()
        });
        assert_eq!(line["path"], String::from_utf8_lossy(bad).into_owned());
    }
}

#[test]
fn nothing_that_a_terminal_obeys_is_written() {
    let nasty = "a\u{1b}[2J\u{7f}\u{9b}31m\r\n\tb".as_bytes();
    let record = Record {
        user_agent: Some(nasty),
        path: nasty,
        ..record()
    };
    let mut out = Vec::new();
    format::json(&mut out, &mut Clock::default(), &record);
    format::combined(&mut out, &mut Clock::default(), &record);
    let text = String::from_utf8(out).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn long_values_are_cut_at_a_character() {
    let long = "é".repeat(3000);
    for pad in ["", "x", "xx"] {
        let value = format!("{pad}{long}");
        let line = json_line(&Record {
            user_agent: Some(value.as_bytes()),
            ..record()
        });
        let kept = line["user_agent"].as_str().unwrap();
        assert!(value.starts_with(kept), "{}", &kept[..8]);
        assert!((2046..=2048).contains(&kept.len()), "{}", kept.len());
    }
    // Not text at all: nothing to keep whole, and never far from the bound.
    let line = json_line(&Record {
        user_agent: Some(&[0x80; 5000]),
        ..record()
    });
    assert_eq!(line["user_agent"].as_str().unwrap().chars().count(), 2045);
    let line = combined_line(&Record {
        user_agent: Some(&[0x80; 5000]),
        ..record()
    });
    assert_eq!(line.matches("\\x80").count(), 2048);
}

#[test]
fn a_query_is_not_logged() {
    for path in [&b"/a?token=x"[..], b"/a?", b"/a#?b", b"/a"] {
        let record = Record { path, ..record() };
        assert_eq!(json_line(&record)["path"], "/a");
        assert!(combined_line(&record).contains("\"GET /a HTTP/1.1\""));
    }
}

#[test]
fn combined_is_what_nginx_writes() {
    assert_eq!(
        combined_line(&record()),
        "192.0.2.7 - - [01/Mar/2026:11:59:59 +0000] \"GET /cart HTTP/1.1\" 200 5120 \"https://a.example/x\" \"curl/8\"\n"
    );
    let line = combined_line(&Record {
        client: Some(Ipv6Addr::LOCALHOST.into()),
        path: b"/\"\\\x01\xC3\xA9",
        referer: Some(b""),
        user_agent: None,
        status: 99,
        ..record()
    });
    assert_eq!(
        line,
        "::1 - - [01/Mar/2026:11:59:59 +0000] \"GET /\\x22\\x5C\\x01\\xC3\\xA9 HTTP/1.1\" 099 5120 \"-\" \"-\"\n"
    );
    let unread = combined_line(&Record {
        method: "",
        client: None,
        ..record()
    });
    assert!(
        unread.starts_with("- - - [01/Mar/2026:11:59:59 +0000] \"-\" 200"),
        "{unread}"
    );
}

#[test]
fn the_clock_follows_the_records() {
    let mut clock = Clock::default();
    for (seconds, wanted) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
    ] {
        let mut out = Vec::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        format::json(&mut out, &mut clock, &Record { time, ..record() });
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["time"], wanted);
    }
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    let line = json_line(&Record {
        time: before,
        ..record()
    });
    assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
}

/// A sink that asks before each write how many bytes it may take; none: the disk is full.
struct Metered {
    allow: Receiver<Option<usize>>,
    taken: Taken,
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.allow.recv() {
            Ok(Some(most)) => {
                let n = most.min(bytes.len());
                self.taken.lock().unwrap().extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Taken = Arc<Mutex<Vec<u8>>>;

fn metered() -> (AccessLog, Sender<Option<usize>>, Taken) {
    let (allow, allowed) = channel();
    let taken = Taken::default();
    let sink = Metered {
        allow: allowed,
        taken: Arc::clone(&taken),
    };
    let log = AccessLog::start(AccessFormat::Json, Box::new(sink), Box::new(|| Ok(None))).unwrap();
    (log, allow, taken)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_loses_lines_and_says_how_many() {
    let (log, allow, taken) = metered();
    let mut worker = log.worker();
    let mut one = Vec::new();
    format::json(&mut one, &mut Clock::default(), &record());

    // One line and a half, then no space.
    allow.send(Some(one.len() * 3 / 2)).unwrap();
    allow.send(None).unwrap();
    for _ in 0..3 {
        worker.write(&record());
    }
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(log.dropped().load(Relaxed), 2);

    // Still none, for the end of the torn line even.
    allow.send(None).unwrap();
    worker.write(&record());
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(log.dropped().load(Relaxed), 3);

    // Space again: the torn line is ended first, and the new one is whole.
    allow.send(Some(usize::MAX)).unwrap();
    allow.send(Some(usize::MAX)).unwrap();
    worker.write(&record());
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(log.dropped().load(Relaxed), 3);
    let taken = taken.lock().unwrap();
    let lines: Vec<&[u8]> = taken.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 4, "a line, half a line, a line, nothing");
    for at in [0, 2] {
        assert!(serde_json::from_slice::<Value>(lines[at]).is_ok());
    }
    assert!(serde_json::from_slice::<Value>(lines[1]).is_err());
}

#[test]
fn a_writer_that_hangs_costs_lines_and_never_a_worker() {
    let (log, allow, taken) = metered();
    let mut worker = log.worker();
    // The first buffer may be with the writer, as many as the queue holds wait, the others are lost.
    let sent = QUEUE as u64 + 20;
    for _ in 0..sent {
        worker.write(&record());
        worker.flush();
    }
    let lost = log.dropped().load(Relaxed);
    assert!((19..=20).contains(&lost), "{lost}");
    assert!(!log.finish(Duration::ZERO), "the queue is full");
    for _ in 0..sent {
        allow.send(Some(usize::MAX)).unwrap();
    }
    assert!(log.finish(LONG));
    let written = taken
        .lock()
        .unwrap()
        .iter()
        .filter(|byte| **byte == b'\n')
        .count() as u64;
    assert_eq!(written + log.dropped().load(Relaxed), sent);
}

#[test]
fn a_warm_worker_allocates_no_more() {
    let (log, allow, _) = metered();
    let mut worker = log.worker();
    worker.write(&record());
    worker.flush();
    allow.send(Some(usize::MAX)).unwrap();
    assert!(log.finish(LONG));
    // The writer has given the first buffer back, so from now on two take turns.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for _ in 0..10 {
            worker.write(&record());
        }
        seen.insert((
            worker.lines.bytes.as_ptr() as usize,
            worker.lines.bytes.capacity(),
        ));
        worker.flush();
        allow.send(Some(usize::MAX)).unwrap();
        assert!(log.finish(LONG));
    }
    assert!(seen.len() <= 2, "{seen:?}");
}

#[test]
fn a_full_buffer_goes_out_by_itself_and_the_rest_when_the_worker_ends() {
    let (log, allow, taken) = metered();
    for _ in 0..50 {
        allow.send(Some(usize::MAX)).unwrap();
    }
    let mut worker = log.worker();
    let mut written = 0;
    while written == 0 || worker.lines.count > 0 {
        worker.write(&record());
        written += 1;
    }
    let lines = |taken: &Mutex<Vec<u8>>| {
        taken
            .lock()
            .unwrap()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    };
    assert!(log.finish(LONG));
    assert_eq!(lines(&taken), written);
    assert!((10..100).contains(&written), "{written}");
    worker.write(&record());
    assert!(log.finish(LONG));
    assert_eq!(lines(&taken), written, "the buffer is not full");
    drop(worker);
    assert!(log.finish(LONG));
    assert_eq!((lines(&taken), log.dropped().load(Relaxed)), (written + 1, 0));
}

fn to_file(path: &std::path::Path, access: AccessFormat) -> io::Result<AccessLog> {
    AccessLog::open(&Log {
        access,
        file: path.to_str().unwrap().to_owned(),
        level: "info".to_owned(),
    })
}

#[test]
fn a_file_is_appended_to_and_opened_again_after_rotation() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    for round in 1..=2 {
        let log = to_file(&path, AccessFormat::Combined).unwrap();
        let mut worker = log.worker();
        worker.write(&record());
        worker.flush();
        assert!(log.finish(LONG));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), round);
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");

    let log = to_file(&path, AccessFormat::Combined).unwrap();
    let mut worker = log.worker();
    std::fs::rename(&path, &rotated).unwrap();
    worker.write(&record());
    worker.flush();
    assert!(log.reopen());
    worker.write(&record());
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(std::fs::read_to_string(&rotated).unwrap().lines().count(), 3);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);

    // The place is gone: the file that is open stays in use.
    std::fs::rename(&path, &rotated).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(log.reopen());
    worker.write(&record());
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(std::fs::read_to_string(&rotated).unwrap().lines().count(), 2);
    assert_eq!(log.dropped().load(Relaxed), 0);
}

#[test]
fn a_real_full_disk_ends_nothing() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        writeln!(io::stderr(), "NOT CHECKED: no /dev/full here").unwrap();
        return;
    }
    let log = to_file(full, AccessFormat::Json).unwrap();
    let mut worker = log.worker();
    worker.write(&record());
    worker.flush();
    assert!(log.finish(LONG));
    assert_eq!(log.dropped().load(Relaxed), 1);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_and_off_needs_none() {
    let directory = tempfile::tempdir().unwrap();
    assert!(to_file(directory.path(), AccessFormat::Json).is_err());
    let log = to_file(directory.path(), AccessFormat::Off).unwrap();
    let mut worker = log.worker();
    worker.write(&record());
    worker.flush();
    assert!(log.reopen() && log.finish(Duration::ZERO));
    assert_eq!((worker.lines.bytes.len(), log.dropped().load(Relaxed)), (0, 0));
}
