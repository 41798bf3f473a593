#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use std::time::{Duration, Instant};

use ::http::StatusCode;
use bytes::Bytes;

use super::http::judge;
use super::run;
use crate::control::ask::Verdict;

fn shell(line: &str) -> Vec<String> {
    ["sh", "-c", line].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_command_passes_with_zero_and_says_why_not() {
    let facts = [("to", "green".to_owned())];
    let (verdict, detail) = run(&shell("echo checked $CUTOVER_TO"), &facts, None).await;
    assert_eq!(
        (verdict, detail.as_str()),
        (Verdict::Pass, "exit code 0: checked green")
    );
    let (verdict, detail) = run(&shell("echo no database >&2; exit 3"), &[], None).await;
    assert!(
        verdict == Verdict::Fail && detail.contains("3") && detail.contains("no database"),
        "{detail}"
    );
    let (verdict, detail) = run(&["/does/not/exist".to_owned()], &[], None).await;
    assert!(
        verdict == Verdict::Fail && detail.contains("could not be started"),
        "{detail}"
    );
    let (verdict, detail) = run(&shell("cat"), &[], Some("told")).await;
    assert_eq!((verdict, detail.as_str()), (Verdict::Pass, "exit code 0: told"));
}

#[tokio::test]
async fn much_output_is_bounded_and_a_child_that_stays_is_not_waited_for() {
    let begun = Instant::now();
    let line = "yes | head -c 3000000; sleep 600 & echo $! > \"$OUT\"; echo end";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let facts: [(&'static str, String); 0] = [];
    let line = line.replace("$OUT", &file.display().to_string());
    let (verdict, detail) = run(&shell(&line), &facts, None).await;
    assert_eq!(verdict, Verdict::Pass, "{detail}");
    assert!(
        detail.len() < 400 && begun.elapsed() < Duration::from_secs(60),
        "{detail}"
    );
    gone(&std::fs::read_to_string(&file).unwrap()).await;
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let line = format!("sleep 600 & echo $! > {}; wait", file.display());
    let hangs = tokio::spawn(async move { run(&shell(&line), &[], None).await });
    let pid = loop {
        match std::fs::read_to_string(&file) {
            Ok(pid) if pid.ends_with('\n') => break pid,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    hangs.abort();
    gone(&pid).await;
}

/// The process with this id ends, or is a corpse that nobody has buried.
async fn gone(pid: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        if stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")) {
            return;
        }
        assert!(Instant::now() < until, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_webhook_passes_fails_or_waits_and_nonsense_fails() {
    let answer = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        judge(&Ok((status, Bytes::from(body.to_owned()))))
    };
    for (status, body, verdict, detail) in [
        (200, r#"{"status":"pass"}"#, Verdict::Pass, "says pass"),
        (
            200,
            r#"{"status":"fail","reason":"budget spent"}"#,
            Verdict::Fail,
            "budget spent",
        ),
        (
            200,
            r#"{"status":"wait","retry_after":3}"#,
            Verdict::Insufficient,
            "wait",
        ),
        (204, "", Verdict::Pass, "without a word"),
        (200, "OK", Verdict::Fail, "no verdict"),
        (200, r#"{"status":"maybe"}"#, Verdict::Fail, "no verdict"),
        (200, r#"{"status":["pass"]}"#, Verdict::Fail, "no verdict"),
        (403, r#"{"status":"pass"}"#, Verdict::Fail, "403"),
        (302, "", Verdict::Fail, "302"),
        (500, "", Verdict::Insufficient, "500"),
    ] {
        let (is, said, _) = answer(status, body);
        assert!(
            is == verdict && said.contains(detail),
            "{status} {body}: {is:?} {said}"
        );
    }
    let pause = |body: &str| answer(200, body).2;
    assert_eq!(
        pause(r#"{"status":"wait","retry_after":3}"#),
        Duration::from_secs(3)
    );
    assert_eq!(
        pause(r#"{"status":"wait","retry_after":"250ms"}"#),
        Duration::from_millis(250)
    );
    for odd in ["-1", "1e300", "\"soon\"", "null", "999999999"] {
        let pause = pause(&format!(r#"{{"status":"wait","retry_after":{odd}}}"#));
        assert!(
            pause >= Duration::from_millis(100) && pause <= Duration::from_secs(300),
            "{odd}: {pause:?}"
        );
    }
    assert_eq!(judge(&Err("refused".to_owned())).0, Verdict::Insufficient);
}
