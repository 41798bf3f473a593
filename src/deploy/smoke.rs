//! Smoke probes: requests to the target color before anybody else gets there.

use super::door::Door;
use super::fill::{Env, Values};
use super::http::send;
use crate::admin::dto;
use crate::config::{Aim, App, Protocol, Service, SmokeProbe, parse_endpoint};
use crate::rollout::Color;
use crate::smoke::{self, Heard};

/// Where requests to one color go.
#[derive(Clone, Debug)]
pub(super) struct Preview<'a> {
    app: &'a App,
    color: Color,
    state: dto::ColorState,
    /// Listeners through which every request is meant for one color.
    listeners: &'a [(Aim, String)],
}

impl<'a> Preview<'a> {
    pub(super) fn of(
        app: &'a App,
        color: Color,
        state: &dto::ColorState,
        listeners: &'a [(Aim, String)],
    ) -> Self {
        Self {
            app,
            color,
            state: state.clone(),
            listeners,
        }
    }

    /// The color as it is now.
    pub(super) fn renew(&mut self, state: &dto::ColorState) {
        self.state = state.clone();
    }

    /// What `$CUTOVER_PREVIEW_URL` says: the listener that is there for this color; or else an endpoint of the service
    /// that answers `/`, or of the first.
    pub(super) fn url(&self) -> Option<String> {
        if let Some(url) = self.listener() {
            return Some(url);
        }
        let service = match smoke::service(self.app, "/") {
            Some((service, _)) => service,
            None => self.app.services.values().next()?,
        };
        let (address, resolved) = self.written(service)?;
        Some(match parse_endpoint(&address).ok()?.protocol {
            // Its certificate is for its name, not for what the name resolves to.
            Protocol::Https => address,
            _ => {
                let place = resolved.unwrap_or_else(|| address.trim_start_matches("h2c://").to_owned());
                match place.starts_with("unix:") {
                    true => place,
                    false => format!("http://{place}"),
                }
            }
        })
    }

    /// A listener for this very color; or that of the standby, while this color is one.
    fn listener(&self) -> Option<String> {
        let aimed = |aim: Aim| self.listeners.iter().find(|(is, _)| *is == aim);
        let standby = || aimed(Aim::Standby).filter(|_| self.state.role == "standby");
        let (_, url) = aimed(Aim::Color(self.color)).or_else(standby)?;
        Some(url.clone())
    }

    /// The door to what answers a path, and what the path is there.
    fn target(&self, path: &str) -> Result<(Door, String), String> {
        let bare = path.split('?').next().unwrap_or(path);
        let (service, path) = smoke::service(self.app, path)
            .ok_or_else(|| format!("no service of the app answers `{bare}`"))?;
        let (address, resolved) = self
            .written(service)
            .ok_or_else(|| format!("service {} has no endpoint in this color", service.name))?;
        let address = parse_endpoint(&address).map_err(|error| error.to_string())?;
        let door = Door::endpoint(self.app, service, &address, resolved.as_deref())?;
        Ok((door, path))
    }

    /// A healthy endpoint of the service if there is one, else the first: as written, and what it resolved to.
    fn written(&self, service: &Service) -> Option<(String, Option<String>)> {
        let mut services = self.state.services.iter();
        let endpoints = &services.find(|state| state.service == service.name)?.endpoints;
        let healthy = endpoints.iter().find(|endpoint| endpoint.health == "healthy");
        let endpoint = healthy.or_else(|| endpoints.first())?;
        Some((endpoint.address.clone(), endpoint.resolved.first().cloned()))
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
    let (door, path) = preview.target(&path).map_err(said)?;
    let request = smoke::request(probe, (&path, door.host.clone()), values, env).map_err(said)?;
    let answer = send(&door, request, probe.within)
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
