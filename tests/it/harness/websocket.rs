//! WebSocket frames by hand (RFC 6455 §5.2), for both ends.

use super::backend::ok;
use super::wire::{Message, Wire};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame, unmasked.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.payload[..self.payload.len().min(20)]);
        let (fin, opcode, masked, size) = (self.fin, self.opcode, self.masked, self.payload.len());
        write!(
            f,
            "Frame {{ fin: {fin}, opcode: {opcode}, masked: {masked}, {size} bytes {start:?} }}"
        )
    }
}

impl Frame {
    pub fn text(payload: impl AsRef<[u8]>) -> Self {
        Self::of(TEXT, payload)
    }

    pub fn of(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            fin: true,
            opcode,
            masked: false,
            payload: payload.as_ref().to_vec(),
        }
    }

    pub fn close(code: u16) -> Self {
        Self::of(CLOSE, code.to_be_bytes())
    }

    pub fn part(mut self) -> Self {
        self.fin = false;
        self
    }

    /// As a client sends it.
    pub fn masked(mut self) -> Self {
        self.masked = true;
        self
    }

    /// The code of a Close frame.
    pub fn code(&self) -> Option<u16> {
        let code = self.payload.get(..2)?;
        (self.opcode == CLOSE).then(|| u16::from_be_bytes([code[0], code[1]]))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.opcode];
        let flag = u8::from(self.masked) << 7;
        let size = self.payload.len();
        match size {
            0..=125 => out.push(flag | u8::try_from(size).unwrap()),
            126..=0xffff => {
                out.push(flag | 126);
                out.extend(u16::try_from(size).unwrap().to_be_bytes());
            }
            _ => {
                out.push(flag | 127);
                out.extend((size as u64).to_be_bytes());
            }
        }
        let key = [0x11, 0x22, 0xf3, 0x44];
        if self.masked {
            out.extend(key);
        }
        let mask = |(at, byte): (usize, &u8)| if self.masked { byte ^ key[at % 4] } else { *byte };
        out.extend(self.payload.iter().enumerate().map(mask));
        out
    }
}

/// The next frame; `None` when the peer has ended.
pub fn read(wire: &mut Wire) -> Option<Frame> {
    let head = wire.try_bytes(2)?;
    let big = |bytes: Vec<u8>| {
        bytes
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let size = match head[1] & 0x7f {
        126 => big(wire.try_bytes(2)?),
        127 => big(wire.try_bytes(8)?),
        short => usize::from(short),
    };
    let masked = head[1] & 0x80 != 0;
    let key = if masked { wire.try_bytes(4)? } else { vec![0; 4] };
    let mut payload = wire.try_bytes(size)?;
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[at % 4];
    }
    assert_eq!(head[0] & 0x70, 0, "reserved bits");
    Some(Frame {
        fin: head[0] & 0x80 != 0,
        opcode: head[0] & 0x0f,
        masked,
        payload,
    })
}

pub const ASK: &str = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Open one; the answer's head.
#[track_caller]
pub fn open(wire: &mut Wire) -> Message {
    let head = wire.send(ASK).head();
    assert_eq!(head.status(), 101, "{head:?}");
    head
}

/// What an app says to a handshake: [`AGREE`] with the hash of its key (RFC 6455 §4.2.2).
fn agree(request: &Message) -> String {
    let key = request.field("sec-websocket-key").unwrap_or_default();
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    AGREE.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &base64(hash.as_ref()))
}

fn base64(bytes: &[u8]) -> String {
    let digits: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let bit = |at: usize| {
        bytes
            .get(at / 8)
            .map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1))
    };
    let digit = |six: usize| digits[(0..6).fold(0, |sum, at| sum << 1 | bit(6 * six + at))];
    let mut text: String = (0..(bytes.len() * 8).div_ceil(6)).map(digit).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// An app in one color: WebSockets are echoed with the color in front of each text, `note` gets every frame; other
/// requests get the color.
pub fn app(wire: &mut Wire, color: &str, note: &(dyn Fn(Frame) + Sync)) {
    while let Some(request) = wire.request() {
        if request.field("upgrade").is_none() {
            wire.send(ok(color));
            continue;
        }
        wire.send(agree(&request));
        while let Some(frame) = read(wire) {
            note(frame.clone());
            let answer = match frame.opcode {
                PING => Frame::of(PONG, frame.payload),
                PONG => continue,
                TEXT => {
                    let payload = [color.as_bytes(), b" ", &frame.payload].concat();
                    Frame {
                        payload,
                        masked: false,
                        ..frame
                    }
                }
                _ => Frame {
                    masked: false,
                    ..frame
                },
            };
            let closes = answer.opcode == CLOSE;
            wire.send(answer.bytes());
            if closes {
                return;
            }
        }
        return;
    }
}
