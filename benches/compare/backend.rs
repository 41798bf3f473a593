//! The two ends of the comparison that are no proxy: a raw responder, and a relay that knows no HTTP (the floor).
//!
//!     bench_backend serve ADDRESS... [--rpc ADDRESS...]
//!         answers by path: /16k, /64k, /256k, /10m, /color (the number of the address); anything else 128 bytes.
//!         /healthz is counted by the 10 ms in which it came, and /probes tells and forgets those counts, one a line.
//!         A request that asks for a WebSocket gets one that sends every message back. --rpc: gRPC over clear HTTP/2.
//!     bench_backend relay LISTEN UPSTREAM
//!         copies bytes both ways
//!
//! One thread, keep-alive, no parsing beyond the end of the head: it must never be what limits a proxy.

#![allow(clippy::print_stderr, missing_docs, reason = "a tool of the benchmarks")]

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The answer to the one key that our clients send (RFC 6455 section 1.3 has the pair).
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["serve", rest @ ..] if !rest.is_empty() => {
                let mut halves = rest.split(|word| *word == "--rpc");
                let addresses = halves.next().unwrap_or_default();
                for address in halves.next().unwrap_or_default() {
                    tokio::spawn(serve_rpc(TcpListener::bind(address).await?));
                }
                serve(addresses).await
            }
            ["relay", listen, upstream] => relay(listen, upstream).await,
            _ => {
                eprintln!("usage: bench_backend serve ADDRESS... [--rpc ADDRESS...] | relay LISTEN UPSTREAM");
                Ok(())
            }
        }
    })
}

/// Whole answers, made once.
struct Answers {
    by_path: Vec<(&'static [u8], Vec<u8>)>,
    small: Vec<u8>,
    color: Vec<u8>,
    probes: Mutex<Probes>,
}

/// How many probes came, by time.
struct Probes {
    since: Instant,
    counts: Vec<u32>,
}

impl Probes {
    const BIN_MS: u128 = 10;

    fn new() -> Self {
        Self {
            since: Instant::now(),
            counts: Vec::new(),
        }
    }

    fn count(&mut self) {
        let bin = (self.since.elapsed().as_millis() / Self::BIN_MS) as usize;
        // An hour, should nobody ever ask.
        if bin < 360_000 {
            self.counts.resize(self.counts.len().max(bin + 1), 0);
            self.counts[bin] += 1;
        }
    }
}

impl Answers {
    fn new(number: usize) -> Self {
        let sized = |path: &'static str, kib: usize| (path.as_bytes(), answer(&vec![b'x'; kib * 1024]));
        Self {
            by_path: vec![
                sized("/16k", 16),
                sized("/64k", 64),
                sized("/256k", 256),
                sized("/10m", 10 * 1024),
            ],
            small: answer(&[b'x'; 128]),
            color: answer(format!("{number}\n").as_bytes()),
            probes: Mutex::new(Probes::new()),
        }
    }

    fn of(&self, head: &[u8]) -> Cow<'_, [u8]> {
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or(b"/");
        if path == b"/healthz" || path == b"/probes" {
            return self.probed(path);
        }
        Cow::Borrowed(self.prepared(path))
    }

    fn probed(&self, path: &[u8]) -> Cow<'_, [u8]> {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if path == b"/healthz" {
            probes.count();
            return Cow::Borrowed(&self.small);
        }
        let lines: String = probes.counts.iter().map(|count| format!("{count}\n")).collect();
        *probes = Probes::new();
        Cow::Owned(answer(lines.as_bytes()))
    }

    fn prepared(&self, path: &[u8]) -> &[u8] {
        match self.by_path.iter().find(|(known, _)| *known == path) {
            Some((_, answer)) => answer,
            None if path == b"/color" => &self.color,
            None => &self.small,
        }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

async fn serve(addresses: &[&str]) -> std::io::Result<()> {
    let mut accepting = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let listener = TcpListener::bind(address).await?;
        let answers = Arc::new(Answers::new(number));
        accepting.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream, Arc::clone(&answers)));
            }
        }));
    }
    for task in accepting {
        let _ = task.await;
    }
    Ok(())
}

async fn respond(mut stream: TcpStream, answers: Arc<Answers>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(length) if length > 0 => filled += length,
            _ => return,
        }
        // Requests have no body; several may have come at once.
        while let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            let end = end + 4;
            if buffer[..end].starts_with(b"GET /socket ") {
                let _ = stream.write_all(SWITCHED).await;
                buffer.copy_within(end..filled, 0);
                return echo(stream, buffer, filled - end).await;
            }
            if stream.write_all(&answers.of(&buffer[..end])).await.is_err() {
                return;
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        if filled == buffer.len() {
            return;
        }
    }
}

/// Sends every message of up to 125 bytes back, unmasked (RFC 6455 section 5.2); ends at anything else.
async fn echo(mut stream: TcpStream, mut buffer: Vec<u8>, mut filled: usize) {
    const HEAD: usize = 2;
    const MASK: usize = 4;
    loop {
        while filled >= HEAD && filled >= HEAD + MASK + usize::from(buffer[1] & 0x7f) {
            let length = usize::from(buffer[1] & 0x7f);
            let end = HEAD + MASK + length;
            if length > 125 || buffer[0] & 0x0f == 8 {
                return;
            }
            let mut frame = [0; HEAD + 125];
            frame[0] = buffer[0];
            frame[1] = buffer[1] & 0x7f;
            for (index, byte) in frame[HEAD..HEAD + length].iter_mut().enumerate() {
                *byte = buffer[HEAD + MASK + index] ^ buffer[HEAD + index % MASK];
            }
            if stream.write_all(&frame[..HEAD + length]).await.is_err() {
                return;
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        match stream.read(&mut buffer[filled..]).await {
            Ok(length) if length > 0 => filled += length,
            _ => return,
        }
    }
}

async fn serve_rpc(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder
                .max_concurrent_streams(1024)
                .initial_connection_window_size(1 << 24);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer_rpc(request.into_body(), respond));
            }
        });
    }
}

/// Reads one message and sends it back: head, data, trailers.
async fn answer_rpc(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) -> Option<()> {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let mut head = Response::new(());
    head.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false).ok()?;
    stream.send_data(message.into(), false).ok()?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).ok()
}

async fn relay(listen: &str, upstream: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        let upstream = upstream.to_owned();
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            if let Ok(mut server) = TcpStream::connect(upstream).await {
                let _ = server.set_nodelay(true);
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
