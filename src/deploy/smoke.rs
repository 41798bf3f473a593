//! Smoke probes: requests to the target color before anybody else gets there.

use super::fill::{Env, Values};
use super::http::send;
use crate::admin::dto;
use crate::config::{App, HostPattern, Service, SmokeProbe};
use crate::smoke::{self, Heard};

/// Where requests to one color go.
#[derive(Clone, Debug)]
pub(super) struct Preview<'a> {
    app: &'a App,
    state: dto::ColorState,
}

impl<'a> Preview<'a> {
    pub(super) fn of(app: &'a App, state: &dto::ColorState) -> Self {
        Self {
            app,
            state: state.clone(),
        }
    }

    /// The color as it is now.
    pub(super) fn renew(&mut self, state: &dto::ColorState) {
        self.state = state.clone();
    }

    /// What `$CUTOVER_PREVIEW_URL` says: an endpoint of the service that answers `/`, or else of the first.
    pub(super) fn url(&self) -> Option<String> {
        let service = match smoke::service(self.app, "/") {
            Some((service, _)) => service,
            None => self.app.services.values().next()?,
        };
        let address = self.endpoint(service)?;
        Some(match address.starts_with("unix:") {
            true => address,
            false => format!("http://{address}"),
        })
    }

    /// The address that answers a path, and what the path is there.
    fn target(&self, path: &str) -> Result<(String, String), String> {
        let bare = path.split('?').next().unwrap_or(path);
        let (service, path) = smoke::service(self.app, path)
            .ok_or_else(|| format!("no service of the app answers `{bare}`"))?;
        let address = self
            .endpoint(service)
            .ok_or_else(|| format!("service {} has no endpoint in this color", service.name))?;
        Ok((address, path))
    }

    /// A healthy endpoint of the service if there is one, else the first.
    fn endpoint(&self, service: &Service) -> Option<String> {
        let mut services = self.state.services.iter();
        let endpoints = &services.find(|state| state.service == service.name)?.endpoints;
        let healthy = endpoints.iter().find(|endpoint| endpoint.health == "healthy");
        let endpoint = healthy.or_else(|| endpoints.first())?;
        Some(endpoint.resolved.first().unwrap_or(&endpoint.address).clone())
    }

    fn host(&self, address: &str) -> String {
        let named = self.app.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(name) => Some(name.clone()),
            HostPattern::Below(_) => None,
        });
        match named {
            Some(name) => name,
            None if address.starts_with("unix:") => "localhost".to_owned(),
            None => address.to_owned(),
        }
    }
}

/// Send one probe and judge its answer; what it captures is in `values` then. The answer is a line about it.
///
/// # Errors
/// What was sent, what came, and what was wanted.
pub(super) async fn send_probe(
    probe: &SmokeProbe,
    preview: &Preview<'_>,
    values: &mut Values,
    env: &Env<'_>,
) -> Result<String, String> {
    let path = values.fill(&probe.path, env)?;
    let asked = format!("{} {path}", probe.method);
    let said = |why: String| format!("{asked}: {why}");
    let (address, path) = preview.target(&path).map_err(said)?;
    let host = preview.host(&address);
    let request = smoke::request(probe, (&path, host), values, env).map_err(said)?;
    let answer = send(&address, request, probe.within)
        .await
        .map_err(|why| format!("{asked} → {why}"))?;
    let heard = Heard {
        status: answer.status.as_u16(),
        headers: &answer.headers,
        body: &answer.body,
        took: answer.took,
    };
    smoke::settle(probe, (&asked, heard), values, env)
}
