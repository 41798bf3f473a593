//! Reaching a color on purpose: who may, and the signed token by which others may for a while.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;

use super::{AppRoute, Asked};
use crate::config::{Aim, Preview};
use crate::rollout::Color;

/// What is signed begins with this, so that the key's signatures are good for nothing else.
const PURPOSE: &str = "cutover preview 1";

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A longer text is no token.
const TOKEN_MAX: usize = 200;

/// The key that tokens are signed with.
pub struct PreviewKey(hmac::Key);

impl fmt::Debug for PreviewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreviewKey(…)")
    }
}

impl PreviewKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The key in this file, made if there is none. Proxies that share the file know each other's tokens.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let mut bytes = [0; KEY_BYTES];
                std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
                let written = file.write_all(&bytes).and_then(|()| file.sync_all());
                if written.is_err() {
                    // Half a key would be refused at each start from now on.
                    let _ = std::fs::remove_file(path);
                }
                written.map(|()| Self::new(&bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut bytes = Vec::new();
                std::fs::File::open(path)?
                    .take(KEY_BYTES as u64 + 1)
                    .read_to_end(&mut bytes)?;
                if bytes.len() != KEY_BYTES {
                    let why = format!("a key has {KEY_BYTES} bytes; remove the file to get a new one");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Ok(Self::new(&bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// A token for a color of an app, good until `expires`.
    #[must_use]
    pub fn sign(&self, app: &str, aim: Aim, expires: SystemTime) -> String {
        let until = seconds(expires);
        let tag = hmac::sign(&self.0, signed(app, aim.as_str(), until).as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}.{until}.{hex}", aim.as_str())
    }

    /// What a token is for.
    fn read(&self, app: &str, token: &str, now: SystemTime) -> Result<Aim, Untrusted> {
        let mut parts = token.split('.');
        let (Some(aim), Some(until), Some(hex), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Untrusted::NoToken);
        };
        let (Some(aim), Some(tag)) = (Aim::of(aim), unhex(hex)) else {
            return Err(Untrusted::NoToken);
        };
        let until = until.parse().map_err(|_| Untrusted::NoToken)?;
        // In constant time; and before the time is looked at, so that an expired token is known to have been one.
        hmac::verify(&self.0, signed(app, aim.as_str(), until).as_bytes(), &tag)
            .map_err(|_| Untrusted::Forged)?;
        if seconds(now) >= until {
            return Err(Untrusted::Expired);
        }
        Ok(aim)
    }
}

fn signed(app: &str, aim: &str, until: u64) -> String {
    format!("{PURPOSE}\0{app}\0{aim}\0{until}")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Why a request that means a color does not get it: 403, and never silently the other color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It names a color, and comes from an address that may not.
    Address,
    /// It was forwarded by somebody who is no trusted proxy: its address is not known.
    Forwarded,
    /// It is neither a color nor a token.
    NoToken,
    /// The signature is not this server's, or for another app.
    Forged,
    /// The token was good, and its time is over.
    Expired,
    /// This server has no key to check tokens with.
    NoKey,
}

impl Untrusted {
    /// The reason, for the client; with what to do.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => {
                "a color may be named from the addresses in `preview.from` only; elsewhere a token is needed \
                 (`cutover preview-token`)"
            }
            Self::Forwarded => {
                "the request came through a proxy that is not in `trusted_proxies`, so its address is not known: \
                 a token is needed (`cutover preview-token`)"
            }
            Self::NoToken => "this is neither blue, green or standby nor a preview token",
            Self::Forged => "this preview token is not for this app, or not signed by this server",
            Self::Expired => "this preview token has expired; `cutover preview-token` makes a new one",
            Self::NoKey => "this server could not read its key for preview tokens; its log says why",
        }
    }
}

/// The color that a request means, if it means one.
///
/// # Errors
/// It may not.
pub(super) fn meant(
    app: &AppRoute,
    asked: &Asked<'_>,
    key: Option<&PreviewKey>,
) -> Result<Option<Color>, Untrusted> {
    if let Some(aim) = asked.door {
        return Ok(Some(aim.color(app.active)));
    }
    let Some(preview) = &app.preview else {
        return Ok(None);
    };
    let cookie = || asked.cookie(preview.cookie.as_deref()?);
    let Some(value) = asked
        .headers
        .get(&preview.header)
        .map(http::HeaderValue::as_bytes)
        .or_else(cookie)
    else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    if let Some(aim) = Aim::of(text) {
        by_address(preview, asked)?;
        return Ok(Some(aim.color(app.active)));
    }
    if text.len() > TOKEN_MAX {
        return Err(Untrusted::NoToken);
    }
    let key = key.ok_or(Untrusted::NoKey)?;
    let aim = key.read(&app.name, text, SystemTime::now())?;
    Ok(Some(aim.color(app.active)))
}

fn by_address(preview: &Preview, asked: &Asked<'_>) -> Result<(), Untrusted> {
    if !asked.is_trusted && asked.says_forwarded() {
        return Err(Untrusted::Forwarded);
    }
    let known = asked.client().ok_or(Untrusted::Address)?;
    if preview.from.iter().any(|network| network.contains(known)) {
        Ok(())
    } else {
        Err(Untrusted::Address)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_good_for_its_app_its_color_and_its_time() {
        let key = PreviewKey::new(&[7; 32]);
        let token = key.sign("web", Aim::Standby, at(1_000));
        assert!(token.starts_with("standby.1000."), "{token}");
        assert_eq!(key.read("web", &token, at(999)), Ok(Aim::Standby));
        assert_eq!(key.read("web", &token, at(1_000)), Err(Untrusted::Expired));
        assert_eq!(key.read("shop", &token, at(999)), Err(Untrusted::Forged));
        assert_eq!(
            PreviewKey::new(&[8; 32]).read("web", &token, at(999)),
            Err(Untrusted::Forged)
        );
    }

    #[test]
    fn no_changed_byte_of_a_token_goes_through() {
        let key = PreviewKey::new(&[7; 32]);
        let token = key.sign("web", Aim::Color(Color::Green), at(1_000));
        for place in 0..token.len() {
            for with in ["0", "1", "f", ".", "é", ""] {
                let forged = format!("{}{with}{}", &token[..place], &token[place + 1..]);
                if forged != token {
                    assert!(key.read("web", &forged, at(1)).is_err(), "{forged}");
                }
            }
        }
        for junk in [
            "",
            "green",
            "green.",
            "green.1000",
            "..",
            "green.1000.zz",
            "blue.-1.00",
            "green.1000.00.00",
        ] {
            assert_eq!(key.read("web", junk, at(1)), Err(Untrusted::NoToken), "{junk}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preview.key");
        let token = PreviewKey::load_or_create(&path)
            .unwrap()
            .sign("web", Aim::Standby, at(10));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = PreviewKey::load_or_create(&path).unwrap();
        assert_eq!(again.read("web", &token, at(1)), Ok(Aim::Standby));
        std::fs::write(&path, "short").unwrap();
        let error = PreviewKey::load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("32 bytes"), "{error}");
    }
}
