//! What a deployment will do: the target, and each step with whether it runs. Pure.

use crate::admin::dto;
use crate::admin::nearest;
use crate::config::{Deploy, Step, StepKind, Work};
use crate::rollout::Color;

/// How to deploy, as the command line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where to.
    pub aim: Aim,
    /// What is deployed.
    pub revision: Option<String>,
    /// Do not ask before the switch.
    pub auto_switch: bool,
    /// Stop before the switch.
    pub no_switch: bool,
    /// Leave the smoke step out.
    pub skip_smoke: bool,
    /// Begin with this step.
    pub from: Option<String>,
    /// End with this step.
    pub until: Option<String>,
    /// Although the target serves.
    pub in_place: bool,
    /// Answer every question with yes.
    pub yes: bool,
    /// `{args}`
    pub args: Vec<String>,
    /// Why, for the history.
    pub reason: Option<String>,
    /// Refuse unless the app is at this generation.
    pub expect_generation: Option<u64>,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// Where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// This color.
    Color(Color),
    /// The one that does not serve.
    #[default]
    Auto,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned<'d> {
    /// The step.
    pub step: &'d Step,
    /// Why it is left out, if it is.
    pub skip: Option<String>,
}

/// What a target is at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// It does not serve.
    Standby,
    /// It serves, and the operator wants it all the same.
    InPlace,
    /// It is active, and nothing in it is healthy: a first deployment, or a recovery.
    Nothing,
    /// It serves, and only steps behind the switch are left.
    Switched,
}

/// The target, and what it is at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The target.
    pub color: Color,
    /// What it is.
    pub situation: Situation,
}

/// Each step, in order.
///
/// # Errors
/// `--from` or `--until` names no step, or the one comes behind the other.
pub fn plan<'d>(deploy: &'d Deploy, options: &Options, target: Color) -> Result<Vec<Planned<'d>>, String> {
    let from = place(deploy, "--from", options.from.as_deref())?.unwrap_or(0);
    let until = place(deploy, "--until", options.until.as_deref())?.unwrap_or(usize::MAX);
    if from > until {
        return Err("--from comes behind --until: nothing would be left".to_owned());
    }
    let switch = deploy.steps.iter().position(|step| step.kind.moves_traffic());
    let approve = deploy
        .steps
        .iter()
        .position(|step| step.kind == StepKind::Approve);
    let stop = approve
        .filter(|at| switch.is_none_or(|switch| *at < switch))
        .or(switch);
    let planned = deploy.steps.iter().enumerate().map(|(at, step)| {
        let skip = if at < from {
            Some("before --from".to_owned())
        } else if at > until {
            Some("behind --until".to_owned())
        } else if options.no_switch && stop.is_some_and(|stop| at >= stop) {
            Some("--no-switch".to_owned())
        } else if options.skip_smoke && step.kind == StepKind::Smoke {
            Some("--skip-smoke".to_owned())
        } else if let Some(only) = step.when.filter(|only| *only != target) {
            Some(format!("for {only} only"))
        } else {
            nothing_to_do(deploy, step)
        };
        Planned { step, skip }
    });
    Ok(planned.collect())
}

/// Whether only steps behind the switch are asked for.
fn behind_switch(deploy: &Deploy, options: &Options) -> bool {
    begins(deploy, options).is_some_and(|(from, switch)| from > switch)
}

/// Whether the switch is the first step that is asked for.
fn at_switch(deploy: &Deploy, options: &Options) -> bool {
    begins(deploy, options).is_some_and(|(from, switch)| from == switch)
}

/// The places of `--from` and of the switch.
fn begins(deploy: &Deploy, options: &Options) -> Option<(usize, usize)> {
    let at = |wanted: &dyn Fn(&Step) -> bool| deploy.steps.iter().position(wanted);
    let from = options.from.as_deref()?;
    at(&|step| step.name == from).zip(at(&|step| step.kind.moves_traffic()))
}

fn place(deploy: &Deploy, flag: &str, name: Option<&str>) -> Result<Option<usize>, String> {
    let Some(name) = name else { return Ok(None) };
    let names = || deploy.steps.iter().map(|step| step.name.as_str());
    match names().position(|known| known == name) {
        Some(at) => Ok(Some(at)),
        None => {
            let hint = nearest(name, names()).map_or_else(
                || format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            Err(format!("{flag}: no step is called `{name}`; {hint}"))
        }
    }
}

fn nothing_to_do(deploy: &Deploy, step: &Step) -> Option<String> {
    let none = step.work == Work::None;
    match step.kind {
        StepKind::Hook | StepKind::Start | StepKind::StopOld if none => Some("it has no command".to_owned()),
        StepKind::Smoke if none && deploy.smoke.is_empty() => Some("there are no probes".to_owned()),
        _ => None,
    }
}

/// Whether somebody has to answer a question.
#[must_use]
pub fn needs_answers(plan: &[Planned<'_>], options: &Options) -> bool {
    let mut running = plan.iter().filter(|planned| planned.skip.is_none());
    !options.yes
        && running.any(|planned| {
            planned.step.confirm.is_some() || (planned.step.kind == StepKind::Approve && !options.auto_switch)
        })
}

/// The target.
///
/// # Errors
/// It serves already (exit 4), or the app is not where `--from` needs it.
pub fn decide(app: &dto::App, deploy: &Deploy, options: &Options) -> Result<Decided, String> {
    let active = Color::from(app.active);
    let decided = |color, situation| Ok(Decided { color, situation });
    if behind_switch(deploy, options) {
        return match options.aim {
            Aim::Color(color) if color != active => Err(format!(
                "{color} does not serve, {active} does: the steps behind the switch are for the color that serves"
            )),
            _ => decided(active, Situation::Switched),
        };
    }
    // Taken up again at the switch that was made after all: nothing is started, so nothing is pulled away.
    if options.aim == Aim::Color(active) && at_switch(deploy, options) {
        return decided(active, Situation::Switched);
    }
    let state = colors(app, active);
    let color = match options.aim {
        Aim::Color(color) => color,
        // Something that answers, however badly, may still serve people: it is not pulled away from under them.
        Aim::Auto if reachable(state) => active.other(),
        Aim::Auto => active,
    };
    if color != active {
        return decided(color, Situation::Standby);
    }
    if !state.healthy {
        return decided(color, Situation::Nothing);
    }
    if options.in_place {
        return decided(color, Situation::InPlace);
    }
    Err(format!(
        "{color} serves the traffic and is healthy: deploying there would replace it under load. \
         Say `cutover deploy {}` or `cutover deploy auto`, or --in-place if that is meant",
        color.other()
    ))
}

/// One color's state.
pub(super) const fn colors(app: &dto::App, color: Color) -> &dto::ColorState {
    match color {
        Color::Blue => &app.colors.blue,
        Color::Green => &app.colors.green,
    }
}

fn reachable(state: &dto::ColorState) -> bool {
    let mut endpoints = state.services.iter().flat_map(|service| &service.endpoints);
    state.healthy || endpoints.any(|endpoint| matches!(endpoint.health.as_str(), "healthy" | "failing"))
}
