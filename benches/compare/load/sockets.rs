//! WebSocket messages: a masked text frame of 64 bytes (RFC 6455 section 5.2), then its echo, again and again.

use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, Origin, find_end};
use super::tally::Tally;
use super::{Args, Failure, PATIENCE};

const LENGTH: usize = 64;
const ECHO: usize = 2 + LENGTH;

pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let tally = Tally::new();
    for _ in 0..args.connections {
        let mut stream = timeout(PATIENCE, open(&args.origin)).await??;
        let tally = Rc::clone(&tally);
        tokio::task::spawn_local(async move {
            loop {
                let start = Instant::now();
                match timeout(PATIENCE, call(&mut stream)).await {
                    Ok(Ok(())) => tally.answered(start.elapsed()),
                    Ok(Err(error)) => return tally.failed(&error.to_string()),
                    Err(_) => return tally.failed("no echo in time"),
                }
            }
        });
    }
    tally.measure(args.warmup, args.seconds).await;
    tally.print(None)
}

/// Dials and asks for the upgrade (RFC 6455 section 4.1), with the key of the RFC's own example.
async fn open(origin: &Origin) -> Result<TcpStream, Failure> {
    let mut stream = Client::connect(origin).await?.into_clear()?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        origin.path
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while find_end(&head).is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("closed instead of upgraded".into());
        }
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        let line = String::from_utf8_lossy(&head);
        return Err(line.lines().next().unwrap_or_default().into());
    }
    Ok(stream)
}

async fn call(stream: &mut TcpStream) -> Result<(), Failure> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = [0; 2 + 4 + LENGTH];
    frame[0] = 0x81;
    frame[1] = 0x80 | LENGTH as u8;
    frame[2..6].copy_from_slice(&MASK);
    for (index, byte) in frame[6..].iter_mut().enumerate() {
        *byte = b'x' ^ MASK[index % 4];
    }
    stream.write_all(&frame).await?;
    let mut echo = [0; ECHO];
    stream.read_exact(&mut echo).await?;
    if echo[..2] != [0x81, LENGTH as u8] || echo[2..].iter().any(|byte| *byte != b'x') {
        return Err("the echo is another message".into());
    }
    Ok(())
}
