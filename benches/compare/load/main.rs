//! The load generator of the comparison, where `wrk` and `h2load` do not reach.
//!
//!     bench_load closed  URL [--close] [--tls full|resumed]   as fast as answers come
//!     bench_load rate    URL --rate N        N requests a second, each at its time (no coordinated omission)
//!     bench_load sockets URL                 WebSocket messages of 64 bytes, each waits for its echo
//!     bench_load idle    URL                 one request a connection, then silence until standard input ends
//!     bench_load watch   URL [--rate N]      judges switches; what was switched when comes on standard input
//!
//! All take --connections N, --seconds N, --warmup N and, for https, --ca FILE. The word `begin` on standard output says
//! that the warm-up is over; one line of JSON at the end says what was measured. One thread.
//!
//! Why a tool of our own: wrk has neither a rate nor new connections nor resumption, and what has them (wrk2, oha, k6) is
//! not in Debian or costs several times the CPU of the proxy on the one core that it shares with the backend.

#![allow(missing_docs, reason = "a tool of the benchmarks")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

mod client;
mod pace;
mod sockets;
mod tally;
mod watch;

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use client::{Client, Handshake, Origin};
use pace::Pace;
use tally::Tally;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// Longer than any answer of a proxy that works; then the connection counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Args {
    mode: String,
    origin: Rc<Origin>,
    connections: usize,
    seconds: Duration,
    warmup: Duration,
    rate: Option<f64>,
    close: bool,
}

fn main() -> std::process::ExitCode {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            let done = LocalSet::new().block_on(&runtime, run());
            done.map_err(std::io::Error::other)
        });
    if let Err(error) = done {
        eprintln!("bench_load: {error}");
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}

async fn run() -> Result<(), Failure> {
    let args = arguments()?;
    match args.mode.as_str() {
        "closed" | "rate" => requests(&args).await,
        "sockets" => sockets::run(&args).await,
        "idle" => idle(&args).await,
        "watch" => watch::run(&args).await,
        other => Err(format!("no mode {other}: closed, rate, sockets, idle or watch").into()),
    }
}

fn arguments() -> Result<Args, Failure> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().ok_or("the mode is missing")?;
    let url = words.next().ok_or("the URL is missing")?;
    let (mut options, mut close) = (HashMap::new(), false);
    while let Some(word) = words.next() {
        if word == "--close" {
            close = true;
        } else if let Some(name) = word.strip_prefix("--") {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            options.insert(name.to_owned(), value);
        } else {
            return Err(format!("what is {word}?").into());
        }
    }
    let number = |name: &str, default: f64| -> Result<f64, Failure> {
        options
            .get(name)
            .map_or(Ok(default), |text| text.parse())
            .map_err(|_| format!("--{name} is no number").into())
    };
    let handshake = match options.get("tls").map(String::as_str) {
        Some("full") => Handshake::Full,
        Some("resumed") => Handshake::Resumed,
        None => Handshake::Kept,
        Some(other) => return Err(format!("--tls {other}: full or resumed").into()),
    };
    Ok(Args {
        mode,
        origin: Rc::new(Origin::new(
            &url,
            options.get("ca").map(String::as_str),
            handshake,
        )?),
        connections: number("connections", 64.0)? as usize,
        seconds: Duration::from_secs_f64(number("seconds", 1.0)?),
        warmup: Duration::from_secs_f64(number("warmup", 0.0)?),
        rate: options.get("rate").map(|_| number("rate", 0.0)).transpose()?,
        close: close || handshake != Handshake::Kept,
    })
}

/// Closed loop or fixed rate, over kept connections or a new one each time.
async fn requests(args: &Args) -> Result<(), Failure> {
    let pace = Pace::start(args.rate)?;
    let tally = Tally::new();
    for _ in 0..args.connections {
        tokio::task::spawn_local(ask_again_and_again(
            Rc::clone(&args.origin),
            Rc::clone(&pace),
            Rc::clone(&tally),
            args.close,
        ));
    }
    tally.measure(args.warmup, args.seconds).await;
    // Fixed rate: what is waited for or was never sent in time is part of the truth.
    tally.print(pace.is_fixed().then(|| pace.backlog()))
}

async fn ask_again_and_again(origin: Rc<Origin>, pace: Rc<Pace>, tally: Rc<Tally>, close: bool) {
    let mut client: Option<Client> = None;
    loop {
        let due = pace.next().await;
        let asked = timeout(PATIENCE, async {
            let mut ready = match client.take().filter(Client::is_open) {
                Some(client) => client,
                None => Client::connect(&origin).await?,
            };
            let answer = ready.ask(close).await?;
            Ok::<_, Failure>((ready, answer))
        });
        match asked.await {
            Ok(Ok((ready, answer))) => {
                tally.answered(due.elapsed());
                client = (!close && answer.keeps).then_some(ready);
            }
            Ok(Err(error)) => tally.failed(&error.to_string()),
            Err(_) => tally.failed("no answer in time"),
        }
    }
}

/// Opens connections, some at a time, asks once on each, and holds them all.
async fn idle(args: &Args) -> Result<(), Failure> {
    const AT_ONCE: usize = 32;
    let mut held = Vec::with_capacity(args.connections);
    while held.len() < args.connections {
        let some = AT_ONCE.min(args.connections - held.len());
        let opening: Vec<_> = (0..some)
            .map(|_| {
                let origin = Rc::clone(&args.origin);
                tokio::task::spawn_local(async move {
                    let mut client = Client::connect(&origin).await?;
                    client.ask(false).await?;
                    Ok::<_, Failure>(client)
                })
            })
            .collect();
        for task in opening {
            held.push(task.await??);
        }
    }
    println!("begin");
    // The end of standard input is the sign to go; a thread of its own, because reading it blocks.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await??;
    let open = held.iter().filter(|client| client.is_open()).count();
    println!("{{\"connections\": {}, \"still_open\": {open}}}", held.len());
    sleep(Duration::ZERO).await;
    Ok(())
}
