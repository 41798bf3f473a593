//! Gates, guard and rollouts.

use super::{Flat, shown_time};
use crate::config::policy::{GateKind, Policy, StepGate};
use crate::expr::Condition;

/// Guard, gates and rollouts. What a command or a webhook is stands in the file; here it is enough that it differs.
pub(super) fn policy(key: &impl Fn(&str) -> String, policy: &Policy, flat: &mut Flat) {
    let guard = &policy.guard;
    flat.time(&key("guard.bake"), guard.bake);
    flat.list(
        &key("guard.rollback_when"),
        guard.rollback_when.iter().map(Condition::source),
    );
    flat.list(
        &key("guard.warn_when"),
        guard.warn_when.iter().map(Condition::source),
    );
    flat.put(&key("guard.min_requests"), guard.min_requests);
    flat.put(&key("guard.evaluations"), guard.evaluations);
    flat.time(&key("guard.every"), guard.every);
    flat.time(&key("guard.grace"), guard.grace);
    flat.put(
        &key("guard.on_insufficient_data"),
        format!("{:?}", guard.on_insufficient_data).to_lowercase(),
    );
    flat.put(&key("guard.connect_failures"), guard.connect_failures);
    for gate in policy.gates.values() {
        let key = |rest: &str| key(&format!("gate.{}.{rest}", gate.name));
        let what = match &gate.kind {
            GateKind::Expr(list) => list
                .iter()
                .map(|one| one.source().to_owned())
                .collect::<Vec<_>>()
                .join(" and "),
            GateKind::Webhook(url) => url.shown.clone(),
            GateKind::Run(_) | GateKind::Approve => String::new(),
        };
        flat.put(&key("kind"), format!("{} {what}", gate.kind.as_str()).trim_end());
        if let GateKind::Run(words) = &gate.kind {
            flat.secrets(&key("run"), vec![("command".to_owned(), words.join(" "))]);
        }
        flat.time(&key("timeout"), gate.timeout);
        flat.put(&key("min_requests"), gate.min_requests);
    }
    let steps = policy
        .rollout
        .steps
        .iter()
        .map(|step| format!("{}% {:?}", step.weight, step.pause));
    flat.list(&key("rollout.steps"), steps);
    let gates = policy.rollout.gate.iter().map(|gate| match gate {
        StepGate::Holds(condition) => condition.source(),
        StepGate::Named(name) => name,
    });
    flat.list(&key("rollout.gate"), gates);
    let ttl = policy.standby_ttl.map(shown_time);
    flat.put(&key("standby_ttl"), ttl.unwrap_or_default());
    let by = policy.revision_by.as_ref();
    flat.put(&key("revision"), by.map(ToString::to_string).unwrap_or_default());
}
