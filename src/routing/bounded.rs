//! Picking an endpoint where `balance.max_in_flight` bounds how many requests each may have.

use std::sync::Arc;

use super::table::{Lane, Member, PickError};
use crate::upstream::breaker::now;
use crate::upstream::{Claim, Place, Queue, Slot};

impl Lane {
    /// The line of this color, where its endpoints' requests are bounded.
    #[must_use]
    pub fn queue(&self) -> Option<&Arc<Queue>> {
        self.settings.queues[self.color].as_ref()
    }

    /// As [`Lane::pick`], for a request that has come as far as it is in the line: only the first may go on.
    ///
    /// # Errors
    /// As [`Lane::pick`]; [`PickError::Full`] also for one that is not the first.
    pub fn pick_in_turn(
        &self,
        place: &Place,
        ticket: usize,
        explicit: bool,
        tried: &[u64],
    ) -> Result<Claim, PickError> {
        match self.queue() {
            Some(queue) if Arc::ptr_eq(queue, place.queue()) && !place.is_first() => Err(PickError::Full),
            Some(queue) => self.pick_within(queue, ticket, explicit, tried),
            None => self.pick_any(ticket, explicit, tried),
        }
    }

    /// For a request that has just come: behind those that wait.
    pub(super) fn pick_behind(
        &self,
        queue: &Arc<Queue>,
        ticket: usize,
        explicit: bool,
        tried: &[u64],
    ) -> Result<Claim, PickError> {
        if queue.waiting() > 0 {
            // It may be that an endpoint came back and nobody has noticed.
            queue.wake();
            return Err(PickError::Full);
        }
        self.pick_within(queue, ticket, explicit, tried)
    }

    fn pick_within(
        &self,
        queue: &Arc<Queue>,
        ticket: usize,
        explicit: bool,
        tried: &[u64],
    ) -> Result<Claim, PickError> {
        let balance = &self.settings.balance;
        let bound = balance.max_in_flight;
        let room = |member: &Member| member.endpoint.slots.has_room(bound);
        let mut trial = self.len() > 1;
        loop {
            let member = self.select(ticket, tried, room)?;
            let Some(slot) = Slot::take(&member.endpoint, queue, bound) else {
                // Another worker was faster: it has one request more than we knew.
                continue;
            };
            if trial && !member.endpoint.breaker.admit(now, balance.ejected) {
                trial = false;
                continue;
            }
            return self.claim(member, explicit).map(|claim| claim.with_slot(slot));
        }
    }
}
