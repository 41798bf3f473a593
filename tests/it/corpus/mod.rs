//! Malformed and ambiguous HTTP/1.1, sent byte for byte: one request where one was meant, one answer where one was.
//!
//! The cases are data: [`requests`] is what clients send, [`answers`] what apps say. Each names every outcome that is
//! right. After each case an innocent client on the same listener, over the same pooled connection if that is still
//! there, must get its own answer, and all that the app was ever sent must be clean HTTP to the strictest reader.

mod answers;
mod mutations;
mod requests;

use crate::harness::{Backend, Message, Proxy, Setup, Wire, requests_in, until};

/// What an attack tries to get through as a request of its own.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a client sends, and what may come of it. `~` stands for a tag of the case, so that what the app gets can be
/// told apart; each `char` is one byte.
struct Case {
    name: String,
    sent: String,
    allowed: Vec<Outcome>,
}

/// What may come of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Not a byte of it reaches the app. The client is refused, or its connection is closed; what stands behind is
    /// not served.
    Refused,
    /// The app gets these requests (`METHOD TARGET BODY`) and no other. What stands behind may be refused.
    Served(Vec<String>),
    /// The app gets nothing, or a head with a body that it can tell is cut: no whole request.
    Cut,
}

/// What did come of it.
#[derive(Debug, Default)]
struct Seen {
    /// Statuses and bodies at the client.
    answers: Vec<(u16, String)>,
    /// Whole requests at the app.
    requests: Vec<String>,
    /// At the app, a connection that ended in the middle of a request.
    cut: bool,
}

const REFUSALS: [u16; 11] = [400, 404, 405, 408, 411, 413, 414, 417, 431, 501, 505];

impl Outcome {
    fn is(&self, seen: &Seen, tag: &str) -> bool {
        let refusal = |answers: &[(u16, String)]| match answers {
            [] => true,
            [(status, _)] => REFUSALS.contains(status),
            _ => false,
        };
        match self {
            Self::Refused => seen.requests.is_empty() && !seen.cut && refusal(&seen.answers),
            Self::Cut => {
                let told = matches!(seen.answers.as_slice(), [] | [(400 | 408 | 502, _)]);
                seen.requests.is_empty() && told
            }
            Self::Served(wanted) => {
                let wanted: Vec<_> = wanted.iter().map(|text| text.replace('~', tag)).collect();
                let (own, more) = seen.answers.split_at(wanted.len().min(seen.answers.len()));
                let told = own.iter().zip(&wanted).all(|((status, text), wanted)| {
                    *status == 200 && (text == wanted || wanted.starts_with("HEAD "))
                });
                seen.requests == wanted && own.len() == wanted.len() && !seen.cut && told && refusal(more)
            }
        }
    }
}

/// One byte a character.
fn latin1(text: &str) -> Vec<u8> {
    let byte = |c| u8::try_from(u32::from(c)).unwrap_or_else(|_| panic!("{c:?} is more than a byte"));
    text.chars().map(byte).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// How an echoing app shows a request.
fn shown(request: &Message) -> String {
    format!(
        "{} {} {}",
        request.method(),
        request.target(),
        text(&request.body)
    )
}

/// An app that answers with what it was asked.
fn echo() -> Backend {
    Backend::handler(|request| {
        let body = latin1(&shown(request));
        let length = if request.method() == "HEAD" { 0 } else { body.len() };
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.extend(&body[..length]);
        answer
    })
}

/// One worker, so that the innocent come over the connection that the attack has used. No probes.
fn alone(blue: &Backend) -> Proxy {
    Setup::new()
        .workers(1)
        .blue(blue, "health.interval = \"1h\"")
        .start()
}

/// Send every case to one proxy, at once and byte by byte, and say at the end what was wrong with which.
fn run(cases: Vec<Case>) {
    let blue = echo();
    let mut proxy = alone(&blue);
    let mut wrong = Vec::new();
    let mut sent: Vec<(usize, String, Seen)> = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let ways: &[&str] = if case.sent.len() < 1024 {
            &["whole", "drip"]
        } else {
            &["whole"]
        };
        for way in ways {
            let tag = format!("{at}{way}");
            let bytes = latin1(&case.sent.replace('~', &tag));
            let mut client = proxy.client();
            let steps = if *way == "drip" { 1 } else { bytes.len() };
            // A client that is refused in the middle sends no more.
            let _ = bytes.chunks(steps).try_for_each(|some| client.try_send(some));
            client.finish();
            let answers = answers_at(&mut client);
            sent.push((
                at,
                tag,
                Seen {
                    answers,
                    ..Seen::default()
                },
            ));
            if let Err(what) = innocent(&proxy, sent.len()) {
                wrong.push(format!("after {} ({way}): {what}", case.name));
            }
        }
    }
    proxy.stop();
    until("no upstream connection is left", || blue.open() == 0);
    for bytes in blue.received() {
        let (requests, left) = requests_in(&bytes);
        for request in requests {
            wrong.extend(unclean(&request));
            let mine = |(_, tag, _): &&mut (usize, String, Seen)| is_tagged(request.target(), tag);
            match sent.iter_mut().find(mine) {
                Some((_, _, seen)) => seen.requests.push(shown(&request)),
                None if request.target().starts_with("/innocent/") => {}
                None => wrong.push(format!("nobody sent {request:?}")),
            }
        }
        if !left.is_empty() {
            let left = text(&left);
            let target = left.split(' ').nth(1).unwrap_or_default();
            match sent.iter_mut().find(|(_, tag, _)| is_tagged(target, tag)) {
                Some((_, _, seen)) => seen.cut = true,
                None => wrong.push(format!("nobody sent {left:?}")),
            }
        }
    }
    for (at, tag, seen) in &sent {
        let case = &cases[*at];
        if !case.allowed.iter().any(|outcome| outcome.is(seen, tag)) {
            wrong.push(format!("{:?} as {tag}: {seen:?} of {:?}", case.name, case.sent));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_tagged(target: &str, tag: &str) -> bool {
    let at = target.find(tag);
    at.is_some_and(|at| at == 0 || !target.as_bytes()[at - 1].is_ascii_digit())
}

/// Every final answer on a connection until its end.
fn answers_at(client: &mut Wire) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Ok(answer) = client.try_answer() {
        if answer.status() >= 200 {
            answers.push((answer.status(), text(&answer.body)));
        }
    }
    answers
}

/// Somebody else, twice on a connection.
fn innocent(proxy: &Proxy, number: usize) -> Result<(), String> {
    let mut client = proxy.client();
    for time in 1..3 {
        let target = format!("/innocent/{number}/{time}");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        match client.try_answer() {
            Ok(answer) if answer.text() == format!("GET {target} ") => {}
            other => return Err(format!("an innocent asked for {target} and got {other:?}")),
        }
    }
    Ok(())
}

/// Why what the app was sent has a second reading, or carries what was meant for one connection.
fn unclean(request: &Message) -> Option<String> {
    let count = |name: &str| request.all(name).len();
    let start: Vec<&str> = request.start.split(' ').collect();
    let framed_once = count("content-length") + count("transfer-encoding") <= 1;
    let line = start.len() == 3 && start[2] == "HTTP/1.1" && count("host") == 1;
    let hop = [
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "expect",
    ];
    let hop = hop.iter().all(|name| count(name) == 0);
    let peer = request.all("x-forwarded-for") == ["127.0.0.1"];
    (!(framed_once && line && hop && peer)).then(|| format!("unclean: {request:?}"))
}
