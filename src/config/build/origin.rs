//! `[…tls]` of apps and services: how TLS is spoken to `https://` endpoints.

use std::ops::Range;
use std::path::PathBuf;

use super::Build;
use crate::config::load::PemFile;
use crate::config::model::{EndpointAddress, Protocol, UpstreamTls};
use crate::config::raw::{self, At};
use crate::config::values;
use crate::rollout::ByColor;
use crate::tls::{Pair, Trust};

/// What one `tls` table says.
#[derive(Clone, Default)]
pub(super) struct OriginPart {
    ca: Option<PathBuf>,
    identity: Option<Pair>,
    server_name: Option<String>,
    http2: Option<bool>,
}

impl OriginPart {
    pub(super) fn read(
        raw: &raw::UpstreamTls,
        build: &mut Build<'_, '_, '_>,
        pem: &mut Vec<(PemFile, Range<usize>)>,
    ) -> Self {
        let ca = raw.ca.as_ref().and_then(|at| {
            let path = build.text("ca", at, values::file_path)?;
            pem.push((PemFile::Ca(path.clone()), at.span()));
            Some(path)
        });
        Self {
            ca,
            identity: identity(raw, build, pem),
            http2: raw.http2,
            server_name: raw
                .server_name
                .as_ref()
                .and_then(|at| build.text("server_name", at, values::server_name)),
        }
    }

    /// This level's values where it has them, else the other's.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self {
            ca: self.ca.clone().or_else(|| other.ca.clone()),
            identity: self.identity.clone().or_else(|| other.identity.clone()),
            server_name: self.server_name.clone().or_else(|| other.server_name.clone()),
            http2: self.http2.or(other.http2),
        }
    }

    pub(super) fn over_defaults(self) -> UpstreamTls {
        UpstreamTls {
            trust: Trust {
                ca: self.ca,
                identity: self.identity,
                http1_only: self.http2 == Some(false),
            },
            server_name: self.server_name,
        }
    }
}

fn identity(
    raw: &raw::UpstreamTls,
    build: &mut Build<'_, '_, '_>,
    pem: &mut Vec<(PemFile, Range<usize>)>,
) -> Option<Pair> {
    let (cert, key) = match (&raw.client_cert, &raw.client_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (Some(one), None) | (None, Some(one)) => {
            let message = "`client_cert` and `client_key` belong together".to_owned();
            let hint = "set both: the certificate in PEM, and the file of its private key".to_owned();
            build.findings.error(&one.span(), "missing_key", message, hint);
            return None;
        }
    };
    let pair = Pair {
        cert: build.text("client_cert", cert, values::file_path)?,
        key: build.text("client_key", key, values::file_path)?,
    };
    pem.push((PemFile::Pair(pair.clone()), cert.span()));
    Some(pair)
}

impl Build<'_, '_, '_> {
    /// Worth a word: a table that nothing uses.
    pub(super) fn tls_unused(
        &mut self,
        raw: &raw::UpstreamTls,
        endpoints: &[&ByColor<Vec<EndpointAddress>>],
    ) {
        let written = [&raw.ca, &raw.client_cert, &raw.client_key, &raw.server_name];
        let Some(first) = written
            .into_iter()
            .flatten()
            .map(At::span)
            .min_by_key(|span| span.start)
        else {
            return;
        };
        let is_https = |address: &EndpointAddress| address.protocol == Protocol::Https;
        let lists = endpoints.iter().flat_map(|by| by.iter());
        if !lists.flat_map(|(_, list)| list).any(is_https) {
            let message = "`tls` has no effect: no endpoint is written `https://HOST:PORT`".to_owned();
            let hint = "write `https://` before the endpoints that speak TLS".to_owned();
            self.findings.warn(&first, "tls_unused", message, hint);
        }
    }
}
