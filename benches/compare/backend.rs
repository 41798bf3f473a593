//! The two ends of the comparison that are no proxy: a raw responder, and a relay that knows no HTTP (the floor).
//!
//!     raw_backend serve ADDRESS...          answers by path: /128, /16k, /256k; anything else 128 bytes
//!     raw_backend relay LISTEN UPSTREAM     copies bytes both ways
//!
//! One thread, keep-alive, no parsing beyond the end of the head: it must never be what limits a proxy.

#![allow(clippy::print_stderr, missing_docs, reason = "a tool of the benchmarks")]

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["serve", addresses @ ..] if !addresses.is_empty() => serve(addresses).await,
            ["relay", listen, upstream] => relay(listen, upstream).await,
            _ => {
                eprintln!("usage: raw_backend serve ADDRESS... | relay LISTEN UPSTREAM");
                Ok(())
            }
        }
    })
}

/// Whole answers, made once.
struct Answers {
    small: Vec<u8>,
    middle: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn of(&self, head: &[u8]) -> &[u8] {
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or(b"/");
        match path {
            b"/16k" => &self.middle,
            b"/256k" => &self.large,
            _ => &self.small,
        }
    }
}

fn answer(length: usize) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
            .into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

async fn serve(addresses: &[&str]) -> std::io::Result<()> {
    let answers = Arc::new(Answers {
        small: answer(128),
        middle: answer(16 * 1024),
        large: answer(256 * 1024),
    });
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(TcpListener::bind(address).await?);
    }
    let accepting = listeners.into_iter().map(|listener| {
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream, Arc::clone(&answers)));
            }
        })
    });
    for task in accepting.collect::<Vec<_>>() {
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
            if stream.write_all(answers.of(&buffer[..end])).await.is_err() {
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
