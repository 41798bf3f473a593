//! What stands beside a deployment: stop the color that is not needed, start the one to go back to, ask one of them.

use std::time::{Duration, Instant};

use super::hook::Ended as HookEnded;
use super::lease::Held;
use super::plan::colors;
use super::run::{Job, Run, Stopped, interrupted};
use super::steps::is;
use super::{Event, Place, Trouble, seconds};
use crate::admin::{Code, Exit, dto};
use crate::config::{CommandLine, Step, Work};
use crate::rollout::Color;

/// How long a color may take to drain when `stop_old` says nothing.
const DRAIN_TIME: Duration = Duration::from_secs(15 * 60);

impl Run<'_> {
    /// Stop the color that does not serve, once it holds no request. The answer is that color.
    ///
    /// # Errors
    /// It takes traffic, or keeps streams (exit 4); or its command failed.
    pub async fn retire(mut self) -> Result<Color, Stopped> {
        let app = self.app;
        let step = app.deploy.step("stop_old").filter(|step| step.work != Work::None);
        let step = step.cloned().ok_or_else(|| {
            let why = format!(
                "there is nothing to stop it with: add `stop_old` to [app.{}.deploy]",
                app.name
            );
            Trouble::Here(Exit::Usage, why)
        })?;
        let server = self.server()?;
        let before = server.app().await?;
        let active = Color::from(before.active);
        let old = active.other();
        may_retire(&before, old).map_err(|why| Trouble::Here(Exit::Refused, why))?;
        if step.confirm.is_some() && !self.options.yes && self.ask.is_none() {
            let why = "`stop_old` asks first, and there is no terminal: say --yes. Nothing was done";
            return Err(Trouble::Here(Exit::Usage, why.to_owned()).into());
        }
        let mut job = self.job(server, &before, active);
        let held = Held::take(&job.server, format!("retire {old}"), app.deploy.lease).await?;
        let place = Place {
            at: 1,
            of: 1,
            name: step.name.clone(),
            color: Some(old),
        };
        let result = job
            .told(place, &step, async |job| {
                job.empty_then_stop(&step, &before, old).await
            })
            .await;
        job.end(held, result, &step, &before).await?;
        Ok(old)
    }

    /// Start the color to go back to, and wait until it is healthy. One that is healthy already is left alone.
    ///
    /// # Errors
    /// It has no `start`, its command failed, or it does not become healthy.
    pub async fn wake(mut self) -> Result<Color, Stopped> {
        let app = self.app;
        let server = self.server()?;
        let before = server.app().await?;
        let target = before
            .rollback
            .to
            .map_or(Color::from(before.active).other(), Color::from);
        if server.probe(target).await?.healthy {
            (self.show)(Event::Note(format!(
                "{target} is healthy already: it is not started again"
            )));
            return Ok(target);
        }
        let start = app.deploy.step("start").filter(|step| step.work != Work::None);
        let start = start.cloned().ok_or_else(|| {
            let why = format!("{target} is not healthy, and there is nothing to start it with: add `start` to [app.{}.deploy]", app.name);
            Trouble::Here(Exit::Usage, why)
        })?;
        self.options.revision = colors(&before, target).revision.clone();
        let healthy = app
            .deploy
            .step("healthy")
            .cloned()
            .unwrap_or_else(|| Step::bare("healthy"));
        let mut job = self.job(server, &before, target);
        let held = Held::take(&job.server, format!("rollback, start {target}"), app.deploy.lease).await?;
        let place = |at, name: &str| Place {
            at,
            of: 2,
            name: name.to_owned(),
            color: Some(target),
        };
        let mut result = job
            .told(place(1, "start"), &start, async |job| job.work(&start).await)
            .await;
        if result.is_ok() {
            result = job
                .told(place(2, "healthy"), &healthy, async |job| {
                    job.healthy(&healthy).await
                })
                .await;
        }
        job.end(held, result, &start, &before).await?;
        Ok(target)
    }

    /// Ask one color with the probes of the file, or with a command that finds it in `$CUTOVER_PREVIEW_URL`.
    ///
    /// # Errors
    /// A probe or the command failed (exit 4), or there is none.
    pub async fn smoke(mut self, color: Color, command: Vec<String>) -> Result<String, Stopped> {
        let began = Instant::now();
        let server = self.server()?;
        let before = server.app().await?;
        let step = Step::bare("smoke");
        let probes = !self.app.deploy.smoke.is_empty();
        let own = self
            .app
            .deploy
            .step("smoke")
            .filter(|step| step.work != Work::None)
            .cloned();
        let mut job = self.job(server, &before, color);
        let result = match (command.is_empty(), own) {
            (false, _) => job.smoke_command(&step, command).await,
            (true, Some(own)) => job.work(&own).await.map_err(as_gate),
            (true, None) if probes => job.smoke_probes().await,
            (true, None) => {
                let why = "there are no probes: add [[app.NAME.deploy.smoke]], or give a command behind `--`";
                Err(Trouble::Here(Exit::Usage, why.to_owned()))
            }
        };
        match result {
            Ok(note) => Ok(format!("{color} passed in {}; {note}", seconds(began.elapsed()))
                .trim_end_matches("; ")
                .to_owned()),
            Err(trouble) => Err(job.stopped(trouble, None, &before).await),
        }
    }
}

impl Job<'_> {
    /// One step with its events.
    async fn told(
        &mut self,
        place: Place,
        step: &Step,
        work: impl AsyncFnOnce(&mut Self) -> Result<String, Trouble>,
    ) -> Result<(), Trouble> {
        (self.show)(Event::Step(place.clone()));
        let began = Instant::now();
        match work(self).await {
            Ok(note) => {
                (self.show)(Event::Passed(place, began.elapsed(), note));
                Ok(())
            }
            Err(trouble) => {
                let why = self.values.masked(&trouble.brief());
                (self.show)(Event::Failed(place, began.elapsed(), why));
                if !matches!(trouble, Trouble::Here(Exit::Declined | Exit::Interrupted, _)) {
                    self.on_failure(step).await;
                }
                Err(trouble)
            }
        }
    }

    async fn end(
        self,
        held: Held,
        result: Result<(), Trouble>,
        step: &Step,
        before: &dto::App,
    ) -> Result<(), Stopped> {
        let outcome = result
            .as_ref()
            .map_or_else(Trouble::brief, |()| "done".to_owned());
        held.give(&outcome).await;
        match result {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.stopped(trouble, Some(step.name.clone()), before).await),
        }
    }

    async fn empty_then_stop(
        &mut self,
        step: &Step,
        before: &dto::App,
        old: Color,
    ) -> Result<String, Trouble> {
        if let Some(question) = step.confirm.as_ref().filter(|_| !self.options.yes) {
            let question = self.values.fill(question, self.env);
            let question = question.map_err(|why| Trouble::Here(Exit::Failed, why))?;
            self.confirm(&question).await?;
        }
        let wait = step.timeout.unwrap_or(DRAIN_TIME);
        let server = self.server.clone();
        match self
            .waiting(async move { server.drained(old, wait).await })
            .await?
        {
            Ok(_) => {}
            // It never had traffic: a deployment that was given up, say.
            Err(trouble) if is(&trouble, Code::NotDrainable) && colors(before, old).in_flight == 0 => {}
            Err(trouble) => return Err(trouble),
        }
        self.work(step).await
    }

    async fn smoke_command(&mut self, step: &Step, command: Vec<String>) -> Result<String, Trouble> {
        let line = CommandLine::Words(command);
        self.take_token(None).await;
        // Words of the command line are what they are: nothing is filled in.
        let hook = self.hook_as_is(step, &line)?;
        match self.run_hook(hook, &mut |_| {}).await {
            HookEnded::Passed => Ok(String::new()),
            HookEnded::Interrupted => Err(interrupted()),
            ended => Err(Trouble::Here(
                Exit::Refused,
                format!("{} failed: {ended}", self.color),
            )),
        }
    }
}

/// Whether the color that does not serve may be stopped.
fn may_retire(app: &dto::App, old: Color) -> Result<(), String> {
    let state = colors(app, old);
    if state.share > 0 {
        return Err(format!(
            "{old} takes {} % of the traffic: `cutover rollback` takes it back, or finish the move first",
            state.share
        ));
    }
    if let Some(bake) = app.bake.as_ref().filter(|bake| bake.phase == "watching") {
        return Err(format!(
            "the guard watches {} and would go back to {old}: `cutover wait` waits for its end ({:.0} of {:.0} s)",
            Color::from(bake.to),
            bake.watched_seconds,
            bake.length_seconds
        ));
    }
    if state.streams > 0 {
        return Err(format!(
            "{old} still keeps {} streams; they end by [app.{}.drain] streams",
            state.streams, app.app
        ));
    }
    Ok(())
}

/// A command that judges the target: its failure is a refusal.
fn as_gate(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Here(Exit::Failed, why) => Trouble::Here(Exit::Refused, why),
        other => other,
    }
}
