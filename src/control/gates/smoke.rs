//! The gate `smoke`: the smoke probes of a deploy, sent by the server to the color that is to get traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::Question;
use crate::config::{App, HostPattern, SmokeProbe};
use crate::control::ask::{Gated, Verdict};
use crate::control::controller::Controller;
use crate::smoke::fill::Values;
use crate::smoke::{self, Heard};
use crate::upstream::{Endpoint, Health, ask};

impl Controller {
    /// Send the probes in their order; the first that is not answered as it must be ends it.
    pub(super) async fn smoke(self: &Rc<Self>, question: &Question) -> Gated {
        let (verdict, detail) = self.smoked(question).await;
        self.told(question, "smoke", "smoke", verdict, detail).await
    }

    async fn smoked(self: &Rc<Self>, question: &Question) -> (Verdict, String) {
        let config = self.config.borrow().clone();
        let Some(of) = config.apps.get(&question.app) else {
            return (Verdict::Fail, "the config has no such app any more".to_owned());
        };
        let mut values = Values {
            app: question.app.clone(),
            color: question.to,
            other: question.to.other(),
            revision: question.state.colors[question.to].revision.clone(),
            args: Vec::new(),
            captured: BTreeMap::new(),
            secrets: BTreeSet::new(),
        };
        let count = of.deploy.smoke.len();
        for (at, probe) in of.deploy.smoke.iter().enumerate() {
            if let Err(why) = self.probe_smoke(question, of, probe, &mut values).await {
                let why = values.masked(&why).replace("\n ", ";");
                return (Verdict::Fail, format!("probe {} of {count}: {why}", at + 1));
            }
        }
        (Verdict::Pass, format!("{count} of {count} probes passed"))
    }

    async fn probe_smoke(
        &self,
        question: &Question,
        of: &App,
        probe: &SmokeProbe,
        values: &mut Values,
    ) -> Result<String, String> {
        let env = |name: &str| std::env::var(name).ok();
        let path = values.fill(&probe.path, &env)?;
        let asked = format!("{} {path}", probe.method);
        let said = |why: String| format!("{asked}: {why}");
        let (service, path) =
            smoke::service(of, &path).ok_or_else(|| said("no service of the app answers it".to_owned()))?;
        let endpoint = self
            .one_of(question, &service.name)
            .ok_or_else(|| said(format!("service {} has no endpoint in this color", service.name)))?;
        let named = of.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(name) => Some(name.clone()),
            HostPattern::Below(_) => None,
        });
        let own = || endpoint.authority.to_str().unwrap_or("localhost").to_owned();
        let host = named.unwrap_or_else(own);
        let request = smoke::request(probe, (&path, host), values, &env).map_err(said)?;
        let answer = ask(&endpoint, request, probe.within)
            .await
            .map_err(|why| format!("{asked} → {why}"))?;
        let heard = Heard {
            status: answer.status,
            headers: &answer.headers,
            body: &answer.body,
            took: answer.took,
        };
        smoke::settle(probe, (&asked, heard), values, &env)
    }

    /// A healthy endpoint of the color, else its first.
    fn one_of(&self, question: &Question, service: &str) -> Option<Arc<Endpoint>> {
        let table = self.published.load_full();
        let route = table.app(&question.app)?;
        let service = route.services.iter().find(|one| one.name == service)?;
        let members = &service.pools[question.to].members;
        let healthy = members
            .iter()
            .find(|member| member.endpoint.health() == Health::Healthy);
        healthy
            .or_else(|| members.first())
            .map(|member| Arc::clone(&member.endpoint))
    }
}
