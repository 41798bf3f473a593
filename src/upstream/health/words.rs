//! What went wrong, in words for one line of a terminal.

use std::error::Error as _;
use std::io;

use rustix::io::Errno;

/// Bytes of a foreign text that are shown.
pub(super) const SHOWN: usize = 200;

/// Foreign text made fit for a terminal: its first [`SHOWN`] bytes on one line, without control characters.
pub(super) fn shown(text: &[u8]) -> String {
    let cut = text.len() > SHOWN;
    let mut words = String::new();
    for c in String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).chars() {
        if c.is_whitespace() {
            if !words.is_empty() && !words.ends_with(' ') {
                words.push(' ');
            }
        } else if !c.is_control() && !turns_text(c) {
            words.push(c);
        }
    }
    if cut {
        // The cut may have split a character.
        let whole = words.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        words.truncate(whole);
        words.push('…');
    } else {
        words.truncate(words.trim_end().len());
    }
    words
}

/// Invisible characters that hide or reorder text around them.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// Why a connect failed.
pub(super) fn of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::NotFound => "there is no such socket file".into(),
        _ => {
            let text = error.to_string();
            let end = text.find(" (os error").unwrap_or(text.len());
            shown(text.as_bytes()[..end].to_ascii_lowercase().as_ref())
        }
    }
}

/// Whether a connect failed for want of something on our side, so that it says nothing of the endpoint.
pub(in crate::upstream) fn is_our_own(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
    )
}

/// Why an exchange broke off.
pub(super) fn of_http(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "the head of the answer is too large".into();
    }
    if error.is_parse() {
        return format!(
            "the answer is not HTTP/1.1: {}",
            shown(error.to_string().as_bytes())
        );
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        Some(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => CLOSED.into(),
        Some(cause) => of_io(cause),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => CLOSED.into(),
        None => shown(error.to_string().as_bytes()),
    }
}

const CLOSED: &str = "it closed the connection before the end of the answer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_harmless_line() {
        assert_eq!(shown(b""), "");
        assert_eq!(shown(b"  down\r\n\tfor  good \n"), "down for good");
        assert_eq!(shown(b"\x1b[31mred\x07\x00"), "[31mred");
        assert_eq!(shown("a\u{202E}b\u{2028}c".as_bytes()), "ab c");
        assert_eq!(shown(b"\xff\xfe"), "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let exact = "x".repeat(SHOWN);
        assert_eq!(shown(exact.as_bytes()), exact);
        assert_eq!(shown(format!("{exact}y").as_bytes()), format!("{exact}…"));
        let split = format!("{}é", "x".repeat(SHOWN - 1));
        assert_eq!(shown(split.as_bytes()), format!("{}…", "x".repeat(SHOWN - 1)));
    }

    #[test]
    fn our_own_limits_are_told_from_the_endpoints() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
            assert!(is_our_own(&errno.into()));
        }
        for errno in [
            Errno::CONNREFUSED,
            Errno::HOSTUNREACH,
            Errno::NOENT,
            Errno::ACCESS,
        ] {
            assert!(!is_our_own(&errno.into()));
        }
        assert_eq!(of_io(&Errno::HOSTUNREACH.into()), "no route to host");
    }
}
