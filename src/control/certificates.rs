//! Certificates that change while running: taken where they are good, told everywhere where they are not.

use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use super::view::EventKind;
use crate::config::{Config, ListenAddress};
use crate::tls::{Refreshed, Terminator};

/// A listener as bound.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Where; the real port where 0 was asked for.
    pub address: ListenAddress,
    /// Its TLS, if it has any.
    pub tls: Option<Arc<Terminator>>,
    /// Each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// It sends everybody to https.
    pub redirects: bool,
}

impl Controller {
    /// The files have changed, says the watcher.
    pub(super) async fn certificates_changed(&self) {
        let config = Arc::clone(&self.config.borrow());
        self.refresh_certificates(&config).await;
    }

    /// Read every listener's certificates again, as the configuration names them. Gives back what was refused.
    pub(super) async fn refresh_certificates(&self, config: &Config) -> Vec<String> {
        let mut work = Vec::new();
        // The configuration in force has the listeners as bound, in their order.
        for (entrance, listener) in self.listeners.iter().zip(&config.listeners) {
            if let (Some(terminator), Some(tls)) = (&entrance.tls, &listener.tls) {
                work.push((Arc::clone(terminator), tls.settings.certificates.clone()));
            }
        }
        // On a thread of its own, for the same reason as the config file.
        let originators = Arc::clone(&self.originators);
        let refreshed = tokio::task::spawn_blocking(move || {
            let mut all: Refreshed = originators.refresh();
            for (terminator, pairs) in work {
                let one = terminator.certificates().replace(&pairs);
                all.taken.extend(one.taken);
                all.refused.extend(one.refused);
            }
            all
        });
        let Ok(mut refreshed) = refreshed.await else {
            return vec!["reading the certificates failed; those in use go on".to_owned()];
        };
        for list in [&mut refreshed.taken, &mut refreshed.refused] {
            list.sort();
            list.dedup();
        }
        for cert in &refreshed.taken {
            let message = format!("certificate {cert} taken into use");
            tracing::info!("{message}");
            self.tell(EventKind::Reloaded, None, None, message);
        }
        for why in &refreshed.refused {
            let message = format!("certificate refused, the one in use goes on: {why}");
            tracing::error!("{message}");
            self.tell(EventKind::ReloadFailed, None, None, message);
        }
        self.certificate_warnings()
    }

    /// What is wrong with certificates now.
    pub(super) fn certificate_warnings(&self) -> Vec<String> {
        let now = Timestamp::now().as_second();
        let refused = self.originators.refused();
        let refused = refused
            .iter()
            .map(|why| format!("TLS towards apps, a file is refused: {why}"));
        let mut warnings: Vec<String> = refused.collect();
        for terminator in self.listeners.iter().filter_map(|entrance| entrance.tls.as_ref()) {
            let certificates = terminator.certificates();
            let refused = certificates.refused();
            warnings.extend(
                refused
                    .iter()
                    .map(|why| format!("certificate refused, the one in use goes on: {why}")),
            );
            let views = certificates.views();
            let expired = views.iter().filter(|view| view.not_after < now);
            warnings.extend(expired.map(|view| {
                let at = Timestamp::from_second(view.not_after).unwrap_or_default();
                format!("certificate {} expired at {at}: clients refuse it", view.cert)
            }));
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}
