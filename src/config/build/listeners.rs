//! `[[listener]]`: addresses that do not collide, and `[listener.tls]`.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::Build;
use super::traffic::aim;
use crate::config::load::PemFile;
use crate::config::model::{ListenAddress, Listener, Server, Tls};
use crate::config::raw::{self, At};
use crate::config::values;
use crate::tls::{MinVersion, Pair, Settings};

type PemFiles = Vec<(PemFile, Range<usize>)>;

/// What may be answered with a `Location` (RFC 9110 §15.4): 303 would turn a POST into a GET, 300 and 304 are none.
const REDIRECTS: [u16; 4] = [301, 302, 307, 308];

impl Build<'_, '_, '_> {
    pub(super) fn listeners(
        &mut self,
        raw: &[raw::Listener],
        admin: Option<SocketAddr>,
        pem: &mut PemFiles,
    ) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for raw in raw {
            let tls = raw.tls.as_ref().map(|raw| self.tls(raw, pem));
            let respond = self.respond(raw.respond.as_ref());
            let redirect_https = raw.redirect_https.as_ref().and_then(|at| self.redirect(raw, at));
            let Some(at) = &raw.address else { continue };
            let Some(address) = self.text("address", at, values::listen_address) else {
                continue;
            };
            let admin = admin.map(ListenAddress::Tcp);
            let taken = listeners
                .iter()
                .map(|listener| &listener.address)
                .chain(&admin)
                .find(|taken| same_socket(taken, &address));
            match taken {
                Some(taken) => {
                    let whose = if Some(taken) == admin.as_ref() {
                        "the admin address"
                    } else {
                        "another listener"
                    };
                    let message = format!("`{address}` is taken: {whose} has `{taken}`");
                    let hint = "give each its own port".to_owned();
                    self.findings
                        .error(&at.span(), "duplicate_listener", message, hint);
                }
                None => listeners.push(Listener {
                    address,
                    proxy_protocol: raw.proxy_protocol.as_ref().is_some_and(|at| *at.get()),
                    tls,
                    redirect_https,
                    respond,
                    color: raw.color.as_ref().map(|at| aim(*at.get())),
                }),
            }
        }
        listeners
    }

    /// A listener with `proxy_protocol` needs somebody who may send one.
    pub(super) fn proxies_for(&mut self, raw: &Option<Vec<raw::Listener>>, server: &Server) {
        if self.findings.is_broken(&["server", "trusted_proxies"]) {
            return;
        }
        for raw in raw.iter().flatten() {
            let Some(at) = raw.proxy_protocol.as_ref().filter(|at| *at.get()) else {
                continue;
            };
            let of_unix = raw
                .address
                .as_ref()
                .is_some_and(|at| at.get().starts_with("unix:"));
            let (some, hint) = if of_unix {
                (
                    server.trusts_unix,
                    "add `\"unix:\"` to `trusted_proxies` in `[server]`",
                )
            } else {
                let hint = "list the balancers in `[server]`: `trusted_proxies = [\"10.0.0.0/8\"]`";
                (!server.trusted_proxies.is_empty(), hint)
            };
            if !some {
                let message = "`proxy_protocol` without a trusted proxy: every connection would be closed";
                self.findings
                    .error(&at.span(), "conflicting_keys", message, hint.to_owned());
            }
        }
    }

    fn redirect(&mut self, raw: &raw::Listener, at: &At<i64>) -> Option<u16> {
        if raw.tls.is_some() {
            let message =
                "`redirect_https` on a listener that speaks TLS: requests would go in a circle".to_owned();
            let hint = "put it on the listener for clear text".to_owned();
            self.findings.error(&at.span(), "conflicting_keys", message, hint);
        }
        let status = u16::try_from(*at.get())
            .ok()
            .filter(|status| REDIRECTS.contains(status));
        if status.is_none() {
            let message = format!("`redirect_https` cannot be {}", at.get());
            let hint = "301, 302, 307 or 308; 308 keeps method and body, and is remembered".to_owned();
            self.findings.error(&at.span(), "bad_value", message, hint);
        }
        status
    }

    fn tls(&mut self, raw: &raw::Tls, pem: &mut PemFiles) -> Tls {
        let mut certificates = Vec::new();
        for raw in raw.certificates.iter().flatten() {
            // A key that is missing or of the wrong type has been reported.
            let (Some(cert), Some(key)) = (&raw.cert, &raw.key) else {
                continue;
            };
            let paths = (
                self.text("cert", cert, values::file_path),
                self.text("key", key, values::file_path),
            );
            let (Some(cert_path), Some(key_path)) = paths else {
                continue;
            };
            let pair = Pair {
                cert: cert_path,
                key: key_path,
            };
            if certificates.contains(&pair) {
                let message = "this certificate is in the list twice".to_owned();
                self.findings
                    .error(&cert.span(), "conflicting_keys", message, None);
                continue;
            }
            pem.push((PemFile::Pair(pair.clone()), cert.span()));
            certificates.push(pair);
        }
        let client_ca = raw.client_ca.as_ref().and_then(|at| {
            let path = self.text("client_ca", at, values::file_path)?;
            pem.push((PemFile::Ca(path.clone()), at.span()));
            Some(path)
        });
        let alpn = raw
            .alpn
            .as_deref()
            .unwrap_or(&[raw::Alpn::Http2, raw::Alpn::Http1]);
        Tls {
            settings: Settings {
                certificates,
                min_version: match raw.min_version.as_ref().map(At::get) {
                    Some(raw::TlsVersion::Tls13) => MinVersion::Tls13,
                    Some(raw::TlsVersion::Tls12) | None => MinVersion::Tls12,
                },
                alpn: alpn
                    .iter()
                    .map(|protocol| match protocol {
                        raw::Alpn::Http2 => "h2".to_owned(),
                        raw::Alpn::Http1 => "http/1.1".to_owned(),
                    })
                    .collect(),
                client_ca,
            },
            hsts: self.duration("hsts", raw.hsts.as_ref(), Duration::ZERO),
        }
    }
}

/// Whether binding both would fail: the same, or one of them stands for every address of the machine.
fn same_socket(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            one.port() != 0
                && one.port() == other.port()
                && (one.ip() == other.ip()
                    || (one.is_ipv4() == other.is_ipv4()
                        && (one.ip().is_unspecified() || other.ip().is_unspecified())))
        }
        (one, other) => one == other,
    }
}
