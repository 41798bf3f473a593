//! Who holds an app for a longer piece of work: a deploy, from its first step to its last.
//!
//! A lease lives in memory and ends by itself: a holder that dies leaves the app locked for no longer than the time it
//! asked for. It keeps others from moving traffic and from setting endpoints; `rollback` and what protects clients
//! (`hold`, `maintenance`, `drain`) are never kept from anybody.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ask::{Ask, Intent, Refusal, RolloutAsk};
use super::controller::{Controller, Slot};
use super::view::EventKind;
use crate::rollout::Actor;

/// What is asked of an app's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAsk {
    /// Take it, or renew it.
    Take {
        /// The holder's own secret: who knows it may renew, give back, and change the app.
        id: String,
        /// What it is for, for people.
        what: String,
        /// How long it lasts unless it is renewed.
        time: Duration,
    },
    /// Give it back.
    Give {
        /// The holder's secret.
        id: String,
        /// How the work ended, for people.
        outcome: String,
    },
    /// End it, whoever holds it.
    Break,
}

/// A lease, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// What it is for.
    pub what: String,
    /// Who holds it.
    pub by: Actor,
    /// Since when.
    pub since: Timestamp,
    /// How long it lasts unless it is renewed.
    pub left: Duration,
}

/// A lease, as the app's place keeps it.
#[derive(Debug)]
pub(super) struct Lease {
    id: String,
    what: String,
    by: Actor,
    since: Timestamp,
    until: Instant,
}

impl Lease {
    /// As others see it; none when its time is over.
    pub(super) fn view(&self) -> Option<LeaseView> {
        let left = self.until.checked_duration_since(Instant::now())?;
        Some(LeaseView {
            what: self.what.clone(),
            by: self.by.clone(),
            since: self.since,
            left,
        })
    }

    fn busy(&self) -> Option<Refusal> {
        let view = self.view()?;
        Some(Refusal::Busy {
            operation: format!(
                "{} (its lease lasts {} s unless it is renewed; `cutover lease break` ends it)",
                view.what,
                view.left.as_secs()
            ),
            by: view.by.name,
        })
    }
}

impl Controller {
    /// Take, renew, give back or break the lease of an app. The answer is the lease as it is now.
    pub(super) fn lease(&self, app: &str, ask: LeaseAsk, by: &Actor) -> Result<Option<LeaseView>, Refusal> {
        let (view, told) = self.with_slot(app, |slot| match ask {
            LeaseAsk::Take { id, what, time } => take(slot, id, what, time, by),
            LeaseAsk::Give { id, outcome } => Ok(give(slot, &id, &outcome)),
            LeaseAsk::Break => Ok(broken(slot, by)),
        })??;
        if let Some(told) = told {
            tracing::info!(app, "{told}");
            self.tell(EventKind::Deploy, Some(app), None, format!("{app}: {told}"));
        }
        Ok(view)
    }

    /// Whether somebody else's lease forbids what is asked.
    pub(super) fn check_lease(&self, app: &str, ask: &Ask) -> Result<(), Refusal> {
        let guarded = matches!(
            ask.intent,
            Intent::Switch { .. }
                | Intent::Weight { .. }
                | Intent::SetEndpoints { .. }
                | Intent::Rollout(RolloutAsk::Start { .. })
        );
        if !guarded || ask.dry_run {
            return Ok(());
        }
        self.with_slot(app, |slot| match &slot.lease {
            Some(lease) if Some(&lease.id) != ask.lease.as_ref() => lease.busy().map_or(Ok(()), Err),
            _ => Ok(()),
        })?
    }

    /// Leases whose holder gave no sign of life in time.
    pub(super) fn expire_leases(&self) {
        let mut over = Vec::new();
        for (app, slot) in self.apps.borrow_mut().iter_mut() {
            if let Some(lease) = slot.lease.take_if(|lease| lease.view().is_none()) {
                over.push((app.clone(), lease));
            }
        }
        for (app, lease) in over {
            let message = format!(
                "{app}: {} by {} ended without a word: its lease ran out, the app is free",
                lease.what, lease.by.name
            );
            tracing::warn!(app, "{message}");
            self.tell(EventKind::Deploy, Some(&app), None, message);
        }
    }
}

type Taken = (Option<LeaseView>, Option<String>);

fn take(slot: &mut Slot, id: String, what: String, time: Duration, by: &Actor) -> Result<Taken, Refusal> {
    if let Some((broken, breaker)) = &slot.lease_broken
        && *broken == id
    {
        return Err(Refusal::Busy {
            operation: "`lease break`: the lease of this deploy was ended".to_owned(),
            by: breaker.clone(),
        });
    }
    let until = Instant::now() + time;
    if let Some(lease) = &mut slot.lease {
        if lease.id == id {
            lease.until = until;
            lease.what = what;
            return Ok((lease.view(), None));
        }
        if let Some(busy) = lease.busy() {
            return Err(busy);
        }
    }
    if let Some((operation, by)) = &slot.operation {
        return Err(Refusal::Busy {
            operation: operation.clone(),
            by: by.clone(),
        });
    }
    let told = format!("{what} begins (by {})", by.name);
    let lease = slot.lease.insert(Lease {
        id,
        what,
        by: by.clone(),
        since: Timestamp::now(),
        until,
    });
    Ok((lease.view(), Some(told)))
}

fn give(slot: &mut Slot, id: &str, outcome: &str) -> Taken {
    // Not held any more: it ran out or was broken, and that has been told.
    let told = slot.lease.take_if(|lease| lease.id == id);
    let told = told.map(|lease| format!("{} by {} ended: {outcome}", lease.what, lease.by.name));
    (slot.lease.as_ref().and_then(Lease::view), told)
}

fn broken(slot: &mut Slot, by: &Actor) -> Taken {
    let Some(lease) = slot.lease.take() else {
        return (None, None);
    };
    let told = format!(
        "the lease of {} by {} was broken by {}",
        lease.what, lease.by.name, by.name
    );
    slot.lease_broken = Some((lease.id, by.name.clone()));
    (None, Some(told))
}
