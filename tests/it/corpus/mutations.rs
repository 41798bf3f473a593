//! Requests and answers with bytes changed, from seeds: nobody knows what is right for each, but some things never are.
//!
//! An answer is of the request it stands behind, in order; the app gets clean HTTP alone; who comes next gets its own.
//! `CUTOVER_FUZZ=N` tries N of each (`just fuzz`); a failure names its seed, and `CUTOVER_SEED=N` begins there.

use std::sync::{Arc, Mutex};

use super::{HIDDEN, alone, answers_at, innocent, shown, unclean};
use crate::harness::{Backend, Message, Wire, ok, requests_in, until};

/// The generator of the seeds (xorshift64*).
struct Random(u64);

impl Random {
    fn of_seed(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(1);
        random
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % bound
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// What changes go into.
fn requests() -> Vec<String> {
    let chunked = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let length = HIDDEN.len();
    [
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nCookie: a=b; c=d\r\n\r\n".to_owned(),
        format!("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        "POST /d HTTP/1.1\r\nHost: a\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n".to_owned(),
        format!("PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        "GET http://a/f?x=%20y HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "HEAD /g HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET /h HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{HIDDEN}"),
        format!("GET /i HTTP/1.1\r\nHost: a\r\n\r\nGET /j HTTP/1.1\r\nHost: a\r\n\r\nPOST /k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx{HIDDEN}"),
        "GET /l HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n".to_owned(),
        "GET /m HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nTE: trailers\r\nRange: bytes=0-1,2-3\r\n\r\n".to_owned(),
    ]
    .into()
}

fn answers() -> Vec<String> {
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n4;x\r\nbody\r\n0\r\nX-T: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ]
    .map(str::to_owned)
    .into()
}

/// What is put in: what parsers stumble over.
const PARTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\"",
    b"\xff",
    b"\r\n\r\n",
    b"\r\n ",
    b"0\r\n\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 4\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: +4\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity, chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Connection: content-length\r\n",
    b"Connection: close\r\n",
    b"Host: b\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.1",
    b"ffffffffffffffff",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// One to five changes of one of these texts.
fn changed(random: &mut Random, texts: &[String]) -> Vec<u8> {
    let mut bytes = texts[random.below(texts.len())].clone().into_bytes();
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => {
                let end = (at + 1 + random.below(4)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + 1 + random.below(40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, again);
            }
            4 => bytes.truncate(at),
            5 => {
                let other = texts[random.below(texts.len())].as_bytes();
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                // Mostly between two lines, where a whole field does the most.
                let line = bytes[..at].windows(2).rposition(|pair| pair == b"\r\n");
                let at = match line {
                    Some(line) if random.below(2) == 0 => line + 2,
                    _ => at,
                };
                bytes.splice(at..at, random.of(PARTS).iter().copied());
            }
        }
    }
    bytes
}

/// How many, and from which seed on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("CUTOVER_SEED").unwrap_or(1);
    first..first + number("CUTOVER_FUZZ").unwrap_or(300)
}

#[test]
fn changed_requests_never_get_somebody_elses_answer() {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let of_app = Arc::clone(&log);
    let app = Backend::handler(move |request| {
        let text = shown(request);
        of_app.lock().unwrap().push(text.clone());
        let body: Vec<u8> = text.chars().map(|c| c as u8).collect();
        let length = if request.method() == "HEAD" { 0 } else { body.len() };
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.extend(&body[..length]);
        answer
    });
    let mut proxy = alone(&app);
    let texts = requests();
    let mut at_app = 0;
    for seed in seeds() {
        let bytes = changed(&mut Random::of_seed(seed), &texts);
        let what = || format!("seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        let before = log.lock().unwrap().len();
        let mut client = proxy.client();
        let _ = client.try_send(&bytes);
        client.finish();
        let answers = answers_at(&mut client);
        innocent(&proxy, usize::try_from(seed).unwrap()).unwrap_or_else(|why| panic!("{}: {why}", what()));
        let got: Vec<String> = {
            let log = log.lock().unwrap();
            let own = log[before..]
                .iter()
                .filter(|text| !text.starts_with("GET /innocent/"));
            own.cloned().collect()
        };
        at_app += got.len();
        let served = answers.iter().take_while(|(status, _)| *status == 200);
        let served: Vec<&String> = served.map(|(_, text)| text).collect();
        for (answer, request) in served.iter().zip(&got) {
            let of_it = *answer == request || (answer.is_empty() && request.starts_with("HEAD "));
            assert!(of_it, "{} got {answer:?} for {request:?}", what());
        }
        // What was not answered with the app's words was refused, once, and nothing came behind that.
        assert!(served.len() <= got.len(), "{}: {answers:?} for {got:?}", what());
        assert!(answers.len() <= served.len() + 1, "{}: {answers:?}", what());
        let strange = answers
            .iter()
            .find(|(status, _)| *status >= 500 && ![501, 502, 505].contains(status));
        assert!(strange.is_none(), "{}: {answers:?}", what());
    }
    proxy.stop();
    until("no upstream connection is left", || app.open() == 0);
    let mut wrong = Vec::new();
    for bytes in app.received() {
        let (requests, _) = requests_in(&bytes);
        // Who wants to switch protocols says so to the app as well.
        let switches = |request: &&Message| {
            request.all("connection") == ["Upgrade"]
                && matches!(request.all("upgrade")[..], [wanted] if !wanted.eq_ignore_ascii_case("h2c"))
        };
        wrong.extend(
            requests
                .iter()
                .filter(|request| !switches(request))
                .filter_map(unclean),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        at_app > 10,
        "only {at_app} came through: the changes are too coarse to show anything"
    );
}

#[test]
fn changed_answers_are_one_answer_and_nobody_elses() {
    let current = Arc::<Mutex<Vec<u8>>>::default();
    let of_app = Arc::clone(&current);
    let app = Backend::script(move |wire: &mut Wire, _| {
        while let Some(request) = wire.request() {
            if request.target() != "/case" {
                wire.send(ok(&shown(&request)));
                continue;
            }
            let bytes = of_app.lock().unwrap().clone();
            let _ = wire.try_send(&bytes);
            return;
        }
    });
    let proxy = alone(&app);
    let texts = answers();
    let mut whole = 0;
    for seed in seeds() {
        let bytes = changed(&mut Random::of_seed(seed), &texts);
        let what = || format!("seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        current.lock().unwrap().clone_from(&bytes);
        let mut client = proxy.client();
        // The second one on the connection must not get what is left of the first.
        client.send("GET /case HTTP/1.1\r\nHost: a\r\n\r\nGET /own HTTP/1.1\r\nHost: a\r\n\r\n");
        client.finish();
        let answers = answers_at(&mut client);
        assert!(answers.len() <= 2, "{}: {answers:?}", what());
        if let [_, (status, text)] = answers.as_slice() {
            assert_eq!((*status, text.as_str()), (200, "GET /own "), "{}", what());
            whole += 1;
        }
        innocent(&proxy, usize::try_from(seed).unwrap()).unwrap_or_else(|why| panic!("{}: {why}", what()));
    }
    assert!(whole > 10, "only {whole} came through whole");
}
