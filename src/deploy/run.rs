//! One deployment from its first step to its last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::fill::{Env, Values};
use super::hook::requested;
use super::lease::Held;
use super::plan::{Decided, Options, Planned, Situation, colors, decide, needs_answers, plan};
use super::server::Server;
use super::smoke::Preview;
use super::{Event, Place, Trouble};
use crate::admin::client::Client;
use crate::admin::{Exit, dto};
use crate::config::{self, Aim, StepKind, Work};
use crate::rollout::Color;

/// Asks a person a question; the answer comes when it comes.
pub type Ask<'a> = dyn Fn(&str) -> oneshot::Receiver<bool> + 'a;

/// Between two ticks for spinners.
const TICK: Duration = Duration::from_millis(120);

/// A deployment, ready to begin.
pub struct Run<'a> {
    /// The app, from the operator's file.
    pub app: &'a config::App,
    /// The folder of that file: commands run there.
    pub folder: PathBuf,
    /// Listeners of that file through which every request is meant for one color: which, and the URL.
    pub preview: Vec<(Aim, String)>,
    /// How to deploy.
    pub options: Options,
    /// The server.
    pub client: Client,
    /// The operator's environment.
    pub env: &'a Env<'a>,
    /// Where events go.
    pub show: &'a mut dyn FnMut(Event),
    /// Who answers questions; `None` without a terminal.
    pub ask: Option<&'a Ask<'a>>,
    /// Turns true when the operator interrupts.
    pub stop: watch::Receiver<bool>,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("options", &self.options)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// It got to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Where it was deployed to.
    pub color: Color,
    /// What serves now.
    pub active: Color,
    /// The app's generation now.
    pub generation: u64,
    /// How many steps ran.
    pub ran: usize,
}

/// It stopped before its end.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub trouble: Trouble,
    /// The step, if it had begun: `--from` goes on with it.
    pub step: Option<String>,
    /// The target, once it was decided.
    pub color: Option<Color>,
    /// What serves now, and whether that was so before.
    pub serving: Option<(Color, bool)>,
    /// The last lines of `on_failure.logs`.
    pub logs: Vec<String>,
}

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            step: None,
            color: None,
            serving: None,
            logs: Vec::new(),
        }
    }
}

/// How a step ended well.
pub(super) enum Ended {
    Done(String),
    /// It turned out that there was nothing to do.
    Skipped(String),
}

impl<'a> Run<'a> {
    /// Deploy.
    ///
    /// # Errors
    /// With the step and what to do; traffic is where the server says.
    pub async fn deploy(mut self) -> Result<Done, Stopped> {
        let server = self.server()?;
        let before = server.app().await?;
        if let Some(expected) = self
            .options
            .expect_generation
            .filter(|expected| *expected != before.generation)
        {
            let why = format!(
                "the app is at generation {}, not {expected}: somebody changed it in between",
                before.generation
            );
            return Err(Trouble::Here(Exit::Conflict, why).into());
        }
        let deploy = &self.app.deploy;
        let decided =
            decide(&before, deploy, &self.options).map_err(|why| Trouble::Here(Exit::Refused, why))?;
        let steps =
            plan(deploy, &self.options, decided.color).map_err(|why| Trouble::Here(Exit::Usage, why))?;
        if needs_answers(&steps, &self.options) && self.ask.is_none() {
            let why = "there is no terminal to ask at, and a step needs an answer: say --yes, or --auto-switch for the \
                       switch alone. Nothing was done";
            return Err(Trouble::Here(Exit::Usage, why.to_owned()).into());
        }
        let mut job = self.job(server, &before, decided.color);
        job.tell_begin(&before, decided);
        if job.options.dry_run {
            job.rehearse(&steps);
            return job.done(0).await.map_err(Into::into);
        }
        let what = job.what("");
        let held = Held::take(&job.server, what, deploy.lease).await?;
        let result = job.steps(&steps, &held).await;
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err((trouble, step)) => match step {
                Some(step) => format!("failed at {step}: {}", trouble.brief()),
                None => trouble.brief(),
            },
        };
        held.give(&outcome).await;
        match result {
            Ok(ran) => job.done(ran).await.map_err(Into::into),
            Err((trouble, step)) => Err(job.stopped(trouble, step, &before).await),
        }
    }

    /// The server, as this run talks to it.
    pub(super) fn server(&self) -> Result<Server, Trouble> {
        Ok(Server {
            client: self.client.clone(),
            app: self.app.name.clone(),
            lease: secret()?,
        })
    }

    pub(super) fn job(&mut self, server: Server, app: &dto::App, color: Color) -> Job<'_> {
        Job {
            values: Values {
                app: self.app.name.clone(),
                color,
                other: color.other(),
                revision: self.options.revision.clone(),
                args: self.options.args.clone(),
                captured: BTreeMap::new(),
                secrets: BTreeSet::new(),
            },
            preview: Preview::of(self.app, color, colors(app, color), &self.preview),
            app: self.app,
            server,
            color,
            token: Default::default(),
            told_revision: false,
            switched: None,
            smoked: None,
            logs: Vec::new(),
            folder: &self.folder,
            options: &self.options,
            env: self.env,
            show: self.show,
            ask: self.ask,
            stop: self.stop.clone(),
        }
    }
}

/// A deployment under way.
pub(super) struct Job<'a> {
    pub app: &'a config::App,
    pub server: Server,
    pub values: Values,
    pub preview: Preview<'a>,
    pub color: Color,
    /// The header of a preview and a token for it; empty without one.
    pub token: (String, String),
    /// The server knows the revision of the target.
    pub told_revision: bool,
    /// The generation that the switch made.
    pub switched: Option<u64>,
    /// What the smoke step found, for the question before the switch.
    pub smoked: Option<String>,
    /// The last lines of `on_failure.logs`.
    pub logs: Vec<String>,
    pub folder: &'a std::path::Path,
    pub options: &'a Options,
    pub env: &'a Env<'a>,
    pub show: &'a mut dyn FnMut(Event),
    pub ask: Option<&'a Ask<'a>>,
    pub stop: watch::Receiver<bool>,
}

impl Job<'_> {
    fn tell_begin(&mut self, before: &dto::App, decided: Decided) {
        let note = match decided.situation {
            Situation::Standby | Situation::Switched => None,
            Situation::InPlace => Some("in place: this color serves the traffic".to_owned()),
            Situation::Nothing => {
                Some("nothing in it is healthy: a first deployment, or a recovery".to_owned())
            }
        };
        (self.show)(Event::Begun {
            app: self.app.name.clone(),
            color: decided.color,
            revision: self.options.revision.clone(),
            active: before.active.into(),
            note,
        });
    }

    /// What others see of it.
    pub(super) fn what(&self, step: &str) -> String {
        let mut what = format!("deploy {}", self.color);
        if let Some(revision) = &self.options.revision {
            what.push_str(&format!(" revision {revision}"));
        }
        if !step.is_empty() {
            what.push_str(&format!(", step {step}"));
        }
        what.chars().filter(|c| !c.is_control()).take(300).collect()
    }

    async fn steps(&mut self, plan: &[Planned<'_>], held: &Held) -> Result<usize, (Trouble, Option<String>)> {
        let of = plan.len();
        let mut ran = 0;
        for (at, planned) in plan.iter().enumerate() {
            let step = planned.step;
            let place = self.place(step, at, of);
            if let Some(why) = &planned.skip {
                (self.show)(Event::Skipped(place, why.clone()));
                continue;
            }
            let name = || Some(step.name.clone());
            held.say(self.what(&step.name));
            held.still().await.map_err(|trouble| (trouble, name()))?;
            (self.show)(Event::Step(place.clone()));
            let began = Instant::now();
            match self.step(step).await {
                Ok(Ended::Done(note)) => {
                    ran += 1;
                    (self.show)(Event::Passed(place, began.elapsed(), note));
                }
                Ok(Ended::Skipped(why)) => (self.show)(Event::Skipped(place, why)),
                Err(trouble) => {
                    let why = self.values.masked(&trouble.brief());
                    (self.show)(Event::Failed(place, began.elapsed(), why));
                    if !matches!(trouble, Trouble::Here(Exit::Declined | Exit::Interrupted, _)) {
                        self.on_failure(step).await;
                    }
                    return Err((trouble, name()));
                }
            }
        }
        Ok(ran)
    }

    /// The plan, as if it ran.
    fn rehearse(&mut self, plan: &[Planned<'_>]) {
        for (at, planned) in plan.iter().enumerate() {
            let place = self.place(planned.step, at, plan.len());
            let text = match (&planned.skip, &planned.step.work) {
                (Some(why), _) => format!("would be skipped: {why}"),
                (None, Work::None) => "would run".to_owned(),
                (None, Work::Webhook(url)) => format!("would call {url}"),
                (None, Work::Run(lines)) => {
                    let lines = lines.iter().map(ToString::to_string);
                    format!("would run: {}", lines.collect::<Vec<_>>().join("; "))
                }
            };
            (self.show)(Event::Note(format!(
                "[{}/{}] {}: {text}",
                place.at,
                place.of,
                place.title()
            )));
        }
    }

    fn place(&self, step: &config::Step, at: usize, of: usize) -> Place {
        Place {
            at: at + 1,
            of,
            name: step.name.clone(),
            color: match step.kind {
                StepKind::Start
                | StepKind::Healthy
                | StepKind::Smoke
                | StepKind::Switch
                | StepKind::Rollout => Some(self.color),
                StepKind::StopOld => Some(self.color.other()),
                StepKind::Hook | StepKind::Approve | StepKind::Bake => None,
            },
        }
    }

    async fn done(&self, ran: usize) -> Result<Done, Trouble> {
        let after = self.server.app().await?;
        Ok(Done {
            color: self.color,
            active: after.active.into(),
            generation: after.generation,
            ran,
        })
    }

    /// Everything about a stop that helps.
    pub(super) async fn stopped(self, trouble: Trouble, step: Option<String>, before: &dto::App) -> Stopped {
        let serving = match &trouble {
            // Asked for long enough already.
            Trouble::Unanswered(_) => None,
            _ => self.server.app().await.ok(),
        };
        let serving = serving.map(|app| (Color::from(app.active), app.active == before.active));
        let trouble = match trouble {
            Trouble::Here(exit, text) => Trouble::Here(exit, self.values.masked(&text)),
            other => other,
        };
        Stopped {
            trouble,
            step,
            color: Some(self.color),
            serving,
            logs: self.logs,
        }
    }

    /// Wait for something, with ticks, until the operator interrupts.
    pub(super) async fn waiting<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut tick = tokio::time::interval(TICK);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = requested(&mut self.stop) => return Err(interrupted()),
                _ = tick.tick() => (self.show)(Event::Tick),
            }
        }
    }

    /// A question; `Err` when it was declined.
    pub(super) async fn confirm(&mut self, question: &str) -> Result<(), Trouble> {
        let declined = || {
            let text = "declined: nothing more was done; what ran so far stays as it is";
            Trouble::Here(Exit::Declined, text.to_owned())
        };
        let Some(ask) = self.ask else {
            return Err(declined());
        };
        match self.waiting(ask(question)).await? {
            Ok(true) => Ok(()),
            // An end of the input is no yes.
            Ok(false) | Err(_) => Err(declined()),
        }
    }
}

pub(super) fn interrupted() -> Trouble {
    Trouble::Here(Exit::Interrupted, "interrupted".to_owned())
}

/// What nobody can guess.
fn secret() -> Result<String, Trouble> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Trouble::Here(Exit::Failed, format!("/dev/urandom: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
