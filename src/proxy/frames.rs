//! Where a WebSocket's frames end: headers of RFC 6455 §5.2, nothing else. Pure.

/// The longest header: two bytes, a length of eight, a mask of four.
const HEADER_MAX: usize = 14;
/// The opcode of a Close frame (§5.5.1).
const CLOSE: u8 = 0x8;
/// "The server is restarting": come again (IANA's registry of close codes).
const SERVICE_RESTART: u16 = 1012;

/// Follows one direction of a WebSocket from its first byte on.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_MAX],
    /// Bytes of the header that have come; 0 between two frames and in a payload.
    have: usize,
    /// Bytes of the payload to come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// These bytes have passed.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Whether the last frame is whole, so that another may be put behind it.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a Close frame has passed: the last of its direction.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many of these bytes belong to the frame that is under way; all of them if it goes on behind them.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut at = 0;
        while !ahead.is_between() && at < bytes.len() {
            at += ahead.step(&bytes[at..]);
        }
        at
    }

    /// Take bytes up to the end of a header or frame at most; how many were taken (never 0 of some).
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= taken as u64;
            self.end_if_whole();
            return taken;
        }
        let taken = (self.header_len() - self.have).min(bytes.len());
        self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        if self.have == self.header_len() {
            self.left = self.payload_len();
            self.have = 0;
            self.end_if_whole();
        }
        taken
    }

    fn end_if_whole(&mut self) {
        if self.left == 0 && self.header[0] & 0x0f == CLOSE {
            self.closed = true;
        }
    }

    /// As far as it can be told from the bytes that have come: 2 until the second one is there.
    fn header_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn payload_len(&self) -> u64 {
        let big = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        match self.header[1] & 0x7f {
            126 => big(&self.header[2..4]),
            127 => big(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

/// The Close frame that says good-bye; masked when it goes to a server (§5.3).
pub(super) fn goodbye(mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = SERVICE_RESTART.to_be_bytes();
    let Some(mask) = mask else {
        return vec![0x80 | CLOSE, 2, payload[0], payload[1]];
    };
    for (byte, key) in payload.iter_mut().zip(mask) {
        *byte ^= key;
    }
    let mut frame = vec![0x80 | CLOSE, 0x80 | 2];
    frame.extend(mask);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, payload: usize, mask: bool) -> Vec<u8> {
        let flag = if mask { 0x80 } else { 0 };
        let mut out = vec![0x80 | opcode];
        match payload {
            0..=125 => out.push(flag | payload as u8),
            126..=0xffff => {
                out.push(flag | 126);
                out.extend((payload as u16).to_be_bytes());
            }
            _ => {
                out.push(flag | 127);
                out.extend((payload as u64).to_be_bytes());
            }
        }
        if mask {
            out.extend([0x88, 0xff, 0x00, 0x81]);
        }
        // Payload that looks like headers.
        out.extend((0..payload).map(|at| [0x88, 0x82, 0x7f, 0xff, 0x00][at % 5]));
        out
    }

    /// Positions at which a tracker fed byte by byte says that a frame has ended.
    fn ends(bytes: &[u8]) -> Vec<usize> {
        let mut frames = Frames::default();
        let mut ends = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            frames.feed(&[*byte]);
            if frames.is_between() {
                ends.push(at + 1);
            }
        }
        ends
    }

    fn sizes() -> impl Strategy<Value = usize> {
        prop_oneof![
            0..4_usize,
            Just(125),
            Just(126),
            Just(127),
            Just(65_535),
            Just(65_536),
            200..3000_usize
        ]
    }

    fn stream() -> impl Strategy<Value = Vec<(u8, usize, bool)>> {
        let opcode = prop_oneof![Just(0_u8), Just(1), Just(2), Just(9), Just(10)];
        prop::collection::vec((opcode, sizes(), any::<bool>()), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn boundaries_are_where_frames_end_however_they_are_split(
            parts in stream(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            let mut wanted = Vec::new();
            for (opcode, payload, mask) in parts {
                bytes.extend(frame(opcode, payload, mask));
                wanted.push(bytes.len());
            }
            prop_assert_eq!(&ends(&bytes), &wanted);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut frames = Frames::default();
            for pair in cuts.windows(2) {
                let piece = &bytes[pair[0]..pair[1]];
                let next = wanted.iter().find(|end| **end >= pair[0]).copied().unwrap_or(0);
                let rest = if frames.is_between() { 0 } else { (next - pair[0]).min(piece.len()) };
                prop_assert_eq!(frames.rest_of_frame(piece), rest);
                frames.feed(piece);
                prop_assert_eq!(frames.is_between(), pair[1] == 0 || wanted.contains(&pair[1]));
            }
            prop_assert!(!frames.is_closed());
        }

        #[test]
        fn a_close_frame_is_known_by_its_last_byte(
            before in stream(), payload in 0..126_usize, mask: bool,
        ) {
            let mut frames = Frames::default();
            for (opcode, payload, mask) in before {
                frames.feed(&frame(opcode, payload, mask));
            }
            let close = frame(CLOSE, payload, mask);
            frames.feed(&close[..close.len() - 1]);
            prop_assert!(!frames.is_closed());
            frames.feed(&close[close.len() - 1..]);
            prop_assert!(frames.is_closed() && frames.is_between());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut frames = Frames::default();
            frames.feed(&bytes);
            prop_assert!(frames.rest_of_frame(&bytes) <= bytes.len());
        }
    }

    #[test]
    fn good_bye_is_one_whole_close_frame_with_1012() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let bytes = goodbye(mask);
            let mut frames = Frames::default();
            frames.feed(&bytes);
            assert!(frames.is_closed() && frames.is_between());
            assert_eq!(bytes[1] & 0x80 != 0, mask.is_some());
            let payload: Vec<u8> = match mask {
                Some(mask) => bytes[6..]
                    .iter()
                    .zip(mask)
                    .map(|(byte, key)| byte ^ key)
                    .collect(),
                None => bytes[2..].to_vec(),
            };
            assert_eq!(payload, 1012_u16.to_be_bytes());
        }
    }
}
