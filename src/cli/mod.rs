//! The command line: a client of the admin API, and the way to start a server.

mod args;
mod deploy;
mod failure;
mod hold;
mod init;
mod look;
mod operate;
mod output;
mod progress;
mod remote;
mod rollouts;
mod server;
mod tables;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::admin::Exit;
use args::{Cli, Lease, Verb};
use failure::Failure;
use output::{Output, Paint};
use remote::Remote;

/// The whole program: read the arguments, do it, end with the right number.
#[must_use]
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let mut output = Output::process(&env);
    ExitCode::from(run(std::env::args_os(), &env, &mut output).number())
}

/// One command with its surroundings, so that tests can have their own.
fn run(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return parse_error(&error, output),
    };
    let failure = match cli
        .check()
        .map_err(Failure::usage)
        .and_then(|()| dispatch(&cli, env, output))
    {
        Ok(()) if output.lost() => Failure::new(Exit::Failed, "stdout could not be written"),
        Ok(()) => return Exit::Done,
        Err(failure) => failure,
    };
    if let Some(json) = failure.json.as_ref().filter(|_| cli.common.json) {
        output.data(json);
    }
    let error = output.paint_errors.bad("error:");
    output.note(&format!("{error} {}", failure.message));
    failure.exit
}

/// What clap says: help and version are data, the rest is exit 2.
fn parse_error(error: &clap::Error, output: &mut Output) -> Exit {
    let text = |paint: Paint| match paint {
        Paint::Ansi => error.render().ansi().to_string(),
        Paint::Plain => error.render().to_string(),
    };
    if error.use_stderr() {
        let text = text(output.paint_errors);
        output.note(&text);
        Exit::Usage
    } else {
        let text = text(output.paint);
        output.data(&text);
        Exit::Done
    }
}

fn dispatch(cli: &Cli, env: &dyn Fn(&str) -> Option<String>, output: &mut Output) -> Result<(), Failure> {
    match &cli.verb {
        Verb::Run(run) => server::run(run, &cli.common),
        Verb::Init(verb) => init::init(verb, &cli.common, env, output),
        Verb::Check => server::check(&cli.common, env, output),
        Verb::Demo => server::demo(),
        Verb::Schema => server::schema(output),
        Verb::Completion { shell } => server::completion(*shell, output),
        Verb::Man => server::man(output),
        verb => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failed, format!("no runtime: {error}")))?
            .block_on(ask(verb, cli, env, output)),
    }
}

/// Verbs that ask a running server.
async fn ask(
    verb: &Verb,
    cli: &Cli,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    match verb {
        Verb::Deploy(verb) => return deploy::deploy(verb, &cli.common, env, output).await,
        Verb::Smoke { color, command } => {
            return deploy::smoke(color.0, command, &cli.common, env, output).await;
        }
        Verb::Retire => return deploy::retire(&cli.common, env, output).await,
        Verb::Rollback { start: true, .. } => deploy::wake(&cli.common, env, output).await?,
        _ => {}
    }
    let mut remote = Remote::find(&cli.common, env, output).await?;
    let remote = &mut remote;
    match verb {
        Verb::Health { ready } => look::health(remote, *ready).await,
        Verb::Status { watch } => look::status(remote, *watch).await,
        Verb::History { limit } => look::history(remote, *limit).await,
        Verb::Events { follow } => look::events(remote, *follow).await,
        Verb::Explain {
            method,
            url,
            headers,
            from,
        } => look::explain(remote, method, url, headers, *from).await,
        Verb::PreviewToken { to, ttl } => look::preview_token(remote, to.as_str(), *ttl).await,
        Verb::Config => look::config(remote).await,
        Verb::Lease(Lease::Show) => deploy::show_lease(remote).await,
        Verb::Lease(Lease::Break) => deploy::break_lease(remote).await,
        Verb::Switch {
            to,
            hold: true,
            run,
            max_hold,
        } => hold::switch(remote, to.as_str(), run.as_deref(), *max_hold).await,
        Verb::Switch { to, .. } => operate::switch(remote, to.as_str()).await,
        Verb::Rollback { to, .. } => operate::rollback(remote, to.as_deref()).await,
        Verb::Weight { shares } => operate::weight(remote, shares).await,
        Verb::Rollout(verb) => rollouts::rollout(remote, verb).await,
        Verb::Approve { gate, deny } => rollouts::approve(remote, gate.as_deref(), *deny).await,
        Verb::Wait { timeout } => rollouts::wait(remote, *timeout).await,
        Verb::Endpoints(verb) => operate::endpoints(remote, verb).await,
        Verb::Drain { color } => operate::drain(remote, color.0).await,
        Verb::WaitDrained { color, timeout } => operate::wait_drained(remote, color.0, *timeout).await,
        Verb::Hold { max } => operate::hold(remote, *max).await,
        Verb::Release => operate::release(remote).await,
        Verb::Maintenance { state, message } => {
            operate::maintenance(remote, *state, message.as_deref()).await
        }
        Verb::Reload => operate::reload(remote).await,
        Verb::Probe { color } => operate::probe(remote, color.0).await,
        Verb::Deploy(_)
        | Verb::Smoke { .. }
        | Verb::Retire
        | Verb::Run(_)
        | Verb::Init(_)
        | Verb::Check
        | Verb::Demo
        | Verb::Schema
        | Verb::Completion { .. }
        | Verb::Man => Ok(()),
    }
}
