//! `deploy` and its kin: the operator's file, the terminal, the summary.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use http::Method;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::args::Common;
use super::failure::Failure;
use super::output::{Output, clean};
use super::progress::Progress;
use super::remote::Remote;
use super::server;
use crate::admin::client::Call;
use crate::admin::find::{Search, find};
use crate::admin::{Exit, dto};
use crate::config::{self, Aim, App, ListenAddress, Listener};
use crate::deploy::{self, Done, Event, Options, Run, Stopped, Trouble, seconds};
use crate::rollout::Color;

/// `deploy`
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Deploy {
    /// Where to; auto is the color that does not serve
    #[arg(value_enum, default_value = "auto", value_name = "COLOR")]
    pub to: To,
    /// What is deployed: a git sha, a tag
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    pub revision: Option<String>,
    /// Do not ask before the switch
    #[arg(long)]
    pub auto_switch: bool,
    /// Stop before the switch
    #[arg(long, conflicts_with = "auto_switch")]
    pub no_switch: bool,
    /// Leave the smoke step out
    #[arg(long)]
    pub skip_smoke: bool,
    /// Begin with this step
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// End with this step
    #[arg(long, value_name = "STEP")]
    pub until: Option<String>,
    /// Although the color serves the traffic
    #[arg(long)]
    pub in_place: bool,
    /// For {args} in commands
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// The target of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum To {
    /// Blue
    Blue,
    /// Green
    Green,
    /// The color that does not serve
    #[default]
    Auto,
}

impl From<To> for deploy::Aim {
    fn from(to: To) -> Self {
        match to {
            To::Blue => Self::Color(Color::Blue),
            To::Green => Self::Color(Color::Green),
            To::Auto => Self::Auto,
        }
    }
}

fn revision(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err("a revision has 1 to 200 printable characters".to_owned());
    }
    Ok(text.to_owned())
}

/// The operator's own file, with the app that a command is about.
pub(super) struct Own {
    /// The app.
    pub app: App,
    /// The folder of the file: commands run there.
    pub folder: PathBuf,
    /// Its listeners for one color: which, and the URL. With several apps, or names of its own, a URL says too little.
    preview: Vec<(Aim, String)>,
    /// The file.
    path: PathBuf,
}

impl Own {
    /// Read the file named with `-c`, or the first default there is.
    pub(super) fn read(common: &Common, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let path = server::file(common)?;
        let loaded = config::load(&path, env)
            .map_err(|diagnostics| Failure::new(Exit::ConfigInvalid, diagnostics.to_string()))?;
        let any_name = loaded.config.apps.values().all(|app| app.hosts.is_empty());
        let preview = match loaded.config.apps.len() {
            1 if any_name => previews(&loaded.config.listeners),
            _ => Vec::new(),
        };
        let mut apps = loaded.config.apps;
        let names = apps.keys().cloned().collect::<Vec<_>>().join(", ");
        let file = path.display();
        let app = match &common.app {
            Some(name) => apps
                .remove(name)
                .ok_or_else(|| Failure::usage(format!("{file} has no app `{name}`; it has: {names}")))?,
            None if apps.len() > 1 => {
                return Err(Failure::usage(format!(
                    "which app? {file} has: {names}. Name it with -a APP"
                )));
            }
            None => apps
                .into_values()
                .next()
                .ok_or_else(|| Failure::usage(format!("{file} has no app")))?,
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(Self {
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            preview,
            app,
            path,
        })
    }

    /// What runs: the file, the server, the terminal.
    async fn with_run<T>(
        &self,
        common: &Common,
        env: &dyn Fn(&str) -> Option<String>,
        output: &mut Output,
        options: Options,
        work: impl AsyncFnOnce(Run<'_>) -> T,
    ) -> Result<T, Failure> {
        let client = find(&Search {
            admin: common.admin.as_deref(),
            config: Some(&self.path)
                .filter(|_| env("CUTOVER_ADMIN").is_none_or(|admin| admin.is_empty()))
                .map(PathBuf::as_path),
            token_file: common.token_file.as_deref(),
            env,
        })
        .await?;
        let terminal = output.live && io::stdin().is_terminal() && !common.json;
        let progress = RefCell::new(Progress::new(output, common.json, common.quiet));
        let ask = |question: &str| {
            progress.borrow_mut().question(question);
            answer_from_stdin()
        };
        let stop = interrupts()?;
        let run = Run {
            app: &self.app,
            folder: self.folder.clone(),
            preview: self.preview.clone(),
            options,
            client,
            env,
            show: &mut |event: Event| progress.borrow_mut().show(&event),
            ask: terminal.then_some(&ask),
            stop,
        };
        Ok(work(run).await)
    }
}

/// The URLs of listeners through which every request is meant for one color. Not by TLS: its certificate is for a name
/// that the URL has not.
fn previews(listeners: &[Listener]) -> Vec<(Aim, String)> {
    let url = |listener: &Listener| match &listener.address {
        ListenAddress::Unix(_) => listener.address.to_string(),
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://localhost:{}", address.port())
        }
        ListenAddress::Tcp(address) => format!("http://{address}"),
    };
    let plain = listeners
        .iter()
        .filter(|listener| listener.tls.is_none() && listener.redirect_https.is_none());
    plain
        .filter_map(|listener| Some((listener.color?, url(listener))))
        .collect()
}

/// A line from stdin, read by a thread of its own: the process may end while it still waits.
fn answer_from_stdin() -> oneshot::Receiver<bool> {
    let (tell, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
            let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
            let _ = tell.send(yes);
        }
    });
    answer
}

/// True once the operator, or whoever runs us, wants an end.
fn interrupts() -> Result<watch::Receiver<bool>, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("signals: {error}"));
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hup = signal(SignalKind::hangup()).map_err(failed)?;
    let (send, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
        let _ = send.send(true);
        // Kept, so that nobody takes its end for an answer.
        send.closed().await;
    });
    Ok(stop)
}

pub(super) async fn deploy(
    verb: &Deploy,
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    if common.idempotency_key.is_some() {
        return Err(Failure::usage(
            "`deploy` does not take --idempotency-key: a lease keeps a second one out",
        ));
    }
    let own = Own::read(common, env)?;
    let options = Options {
        aim: verb.to.into(),
        revision: verb.revision.clone(),
        auto_switch: verb.auto_switch,
        no_switch: verb.no_switch,
        skip_smoke: verb.skip_smoke,
        from: verb.from.clone(),
        until: verb.until.clone(),
        in_place: verb.in_place,
        yes: common.yes,
        args: verb.args.clone(),
        reason: common.reason.clone(),
        expect_generation: common.expect_generation,
        dry_run: common.dry_run,
    };
    let began = Instant::now();
    let result = own
        .with_run(common, env, output, options, async |run| run.deploy().await)
        .await?;
    let telling = Telling {
        app: &own.app.name,
        verb,
        common,
        began,
    };
    match result {
        Ok(done) => {
            telling.done(output, &done);
            Ok(())
        }
        Err(stopped) => Err(telling.stopped(output, &stopped)),
    }
}

/// The end of a deployment, told once for people and once for programs.
struct Telling<'t> {
    app: &'t str,
    verb: &'t Deploy,
    common: &'t Common,
    began: Instant,
}

impl Telling<'_> {
    /// `web: deploy green (v2)`
    fn what(&self, color: &str) -> String {
        let revision = self.verb.revision.as_ref();
        let revision = revision.map_or(String::new(), |revision| format!(" ({revision})"));
        format!("{}: deploy {color}{revision}", self.app)
    }

    fn done(&self, output: &mut Output, done: &Done) {
        let how = if self.common.dry_run {
            "dry run, nothing was done,"
        } else {
            "done"
        };
        let text = format!(
            "{}: {how} in {}; {} is active (generation {})",
            self.what(done.color.as_str()),
            seconds(self.began.elapsed()),
            done.active,
            done.generation
        );
        let end = json!({
            "schema": "cutover.deploy/v1", "event": "end", "result": "done", "exit": 0, "app": self.app,
            "color": done.color.as_str(), "active": done.active.as_str(), "generation": done.generation,
            "revision": self.verb.revision, "seconds": self.began.elapsed().as_secs_f64(),
        });
        say(output, self.common, &text, done.active.as_str(), &end);
    }

    fn stopped(&self, output: &mut Output, stopped: &Stopped) -> Failure {
        let resume = stopped.step.as_ref();
        let resume = resume.map(|step| again(self.verb, self.common, stopped, step));
        let (failure, end) = ended(output, stopped, resume, self.app);
        let step = stopped.step.as_deref();
        let serves = stopped.serving.map_or(String::new(), |(color, same)| {
            let so = if same { "unchanged" } else { "the switch was made" };
            format!("; {color} serves, {so}")
        });
        let text = format!(
            "{}: stopped{} after {}{serves}",
            self.what(stopped.color.map_or("auto", Color::as_str)),
            step.map_or(String::new(), |step| format!(" at {step}")),
            seconds(self.began.elapsed())
        );
        say(output, self.common, &text, "", &end);
        failure
    }
}

/// The answer, in the form that is wanted.
fn say(output: &mut Output, common: &Common, text: &str, short: &str, end: &serde_json::Value) {
    if common.json {
        output.data(&end.to_string());
    } else if !common.quiet {
        output.data(&clean(text));
    } else if !short.is_empty() {
        output.data(short);
    }
}

/// The failure of a run, for people; and its last event, for programs.
fn ended(
    output: &Output,
    stopped: &Stopped,
    resume: Option<String>,
    app: &str,
) -> (Failure, serde_json::Value) {
    let mut failure = match &stopped.trouble {
        Trouble::Refused(answer) => Failure::refused(answer, output.paint_errors),
        Trouble::Unanswered(error) => Failure::unanswered(error, false),
        Trouble::Here(exit, text) => Failure::new(*exit, clean(text)),
    };
    failure.json = None;
    if matches!(stopped.trouble, Trouble::Here(..))
        && let Some((color, same)) = stopped.serving
    {
        let so = if same {
            "unchanged"
        } else {
            "the switch was made and stays"
        };
        failure.message.push_str(&format!("\nserving: {color}, {so}"));
    }
    if !stopped.logs.is_empty() {
        failure.message.push_str("\nlast lines of on_failure.logs:");
        for line in &stopped.logs {
            failure.message.push_str(&format!("\n  | {}", clean(line)));
        }
    }
    if let Some(resume) = &resume {
        failure.message.push_str(&format!("\nnext: {resume}"));
    }
    let end = json!({
        "schema": "cutover.deploy/v1", "event": "end", "app": app,
        "result": match failure.exit {
            Exit::Declined => "declined",
            Exit::Interrupted => "interrupted",
            _ => "failed",
        },
        "exit": failure.exit.number(), "step": stopped.step, "color": stopped.color.map(Color::as_str),
        "active": stopped.serving.map(|(color, _)| color.as_str()), "message": failure.message, "next": resume,
    });
    (failure, end)
}

/// The command that goes on with a step.
fn again(verb: &Deploy, common: &Common, stopped: &Stopped, step: &str) -> String {
    let mut text = format!("cutover deploy {}", stopped.color.map_or("auto", Color::as_str));
    let quote =
        |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.into_owned());
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!(" {name} {}", quote(&value)));
        }
    };
    flag(
        "-c",
        common.config.as_ref().map(|path| path.display().to_string()),
    );
    flag("-a", common.app.clone());
    flag("--revision", verb.revision.clone());
    flag("--from", Some(step.to_owned()));
    format!("goes on with the same step: {text}")
}

/// `retire`
pub(super) async fn retire(
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let own = Own::read(common, env)?;
    let options = options(common);
    let result = own
        .with_run(common, env, output, options, async |run| run.retire().await)
        .await?;
    match result {
        Ok(color) => {
            let text = format!("{}: {color} holds no request and was stopped", own.app.name);
            let end = json!({ "schema": "cutover.retire/v1", "app": own.app.name, "color": color.as_str(), "stopped": true });
            say(output, common, &text, color.as_str(), &end);
            Ok(())
        }
        Err(stopped) => Err(ended(output, &stopped, None, &own.app.name).0),
    }
}

/// The first half of `rollback --start`.
pub(super) async fn wake(
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    if common.dry_run {
        return Err(Failure::usage(
            "`rollback --start` does not take --dry-run: it starts something",
        ));
    }
    let own = Own::read(common, env)?;
    let options = options(common);
    // Its events are no answer: of the two halves, only the rollback has one.
    let quiet = Common {
        quiet: common.quiet || common.json,
        json: false,
        ..common.clone()
    };
    let result = own
        .with_run(&quiet, env, output, options, async |run| run.wake().await)
        .await?;
    result
        .map(drop)
        .map_err(|stopped| ended(output, &stopped, None, &own.app.name).0)
}

/// `smoke`
pub(super) async fn smoke(
    color: Color,
    command: &[String],
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let own = Own::read(common, env)?;
    let options = options(common);
    let command = command.to_vec();
    let work = async |run: Run<'_>| run.smoke(color, command).await;
    match own.with_run(common, env, output, options, work).await? {
        Ok(note) => {
            let end = json!({ "schema": "cutover.smoke/v1", "app": own.app.name, "color": color.as_str(), "passed": true });
            say(
                output,
                common,
                &format!("{}: {note}", own.app.name),
                "passed",
                &end,
            );
            Ok(())
        }
        Err(stopped) => Err(ended(output, &stopped, None, &own.app.name).0),
    }
}

fn options(common: &Common) -> Options {
    Options {
        yes: common.yes,
        reason: common.reason.clone(),
        ..Options::default()
    }
}

/// `lease show`
pub(super) async fn show_lease(remote: &mut Remote<'_>) -> Result<(), Failure> {
    let call = Call::get(remote.app_path("/lease"));
    let (document, text): (dto::LeaseDocument, _) = remote.call(&call).await?;
    show_document(remote, &document, &text);
    Ok(())
}

/// `lease break`
pub(super) async fn break_lease(remote: &mut Remote<'_>) -> Result<(), Failure> {
    let call = Call::get(remote.app_path("/lease"));
    let (before, _): (dto::LeaseDocument, _) = remote.call(&call).await?;
    let call = Call {
        method: Method::DELETE,
        body: Some("{}".to_owned()),
        ..call
    };
    let (document, text): (dto::LeaseDocument, _) = remote.call(&call).await?;
    if let Some(lease) = before
        .lease
        .filter(|_| !remote.common.json && !remote.common.quiet)
    {
        remote.output.note(&format!(
            "broken: {} by {}; that deploy stops after the command it is running",
            clean(&lease.what),
            clean(&lease.by)
        ));
    }
    show_document(remote, &document, &text);
    Ok(())
}

fn show_document(remote: &mut Remote<'_>, document: &dto::LeaseDocument, text: &str) {
    let app = clean(&document.app);
    if remote.common.json {
        remote.output.data(text);
        return;
    }
    let line = match (&document.lease, remote.common.quiet) {
        (Some(lease), false) => format!(
            "{app}: {} by {} since {}; ends in {:.0} s unless it is renewed",
            clean(&lease.what),
            clean(&lease.by),
            clean(&lease.since),
            lease.expires_in_seconds
        ),
        (Some(lease), true) => clean(&lease.by),
        (None, false) => format!("{app}: free; nobody holds it"),
        (None, true) => "free".to_owned(),
    };
    remote.output.data(&line);
}
