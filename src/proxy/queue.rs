//! Waiting for room at an endpoint, where `balance.max_in_flight` bounds how many requests each has.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::request::Parts;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::hold::bytes_of;
use super::retry::Tries;
use super::worker::Worker;
use crate::routing::{Lane, PickError};
use crate::upstream::Place;

/// How often the first in line looks although nobody has woken it: an endpoint may have come back to health, or out of
/// the breaker.
const LOOK: Duration = Duration::from_millis(250);

/// A request's wait, from the first time that there was no room for it.
#[derive(Debug)]
pub(super) struct Waiting {
    place: Option<Place>,
    until: Instant,
}

/// Wait in the line of this lane's color. True: an endpoint is claimed. False: decide again, for the table has changed or
/// there is nothing to wait for; the place is kept if it is the same line again.
pub(super) async fn wait(
    worker: &Worker,
    exchange: &Exchange,
    head: &Parts,
    (lane, explicit): (&Arc<Lane>, bool),
    tries: &mut Tries,
) -> Result<bool, ProxyError> {
    let Some(queue) = lane.queue() else {
        return Ok(false);
    };
    let balance = &lane.settings.balance;
    let (ticket, until) = (tries.ticket(worker), Instant::now() + balance.queue_timeout);
    let (waiting, failed) = tries.waiting(until);
    let until = waiting.until;
    let place = match waiting
        .place
        .take()
        .filter(|place| Arc::ptr_eq(place.queue(), queue))
    {
        Some(place) => place,
        None => queue
            .enter(balance.queue, exchange.client_ip(), bytes_of(head))
            .ok_or(ProxyError::QueueFull)?,
    };
    let place = waiting.place.insert(place);
    let mut published = std::pin::pin!(worker.released.notified());
    published.as_mut().enable();
    loop {
        if !worker.is_newest(lane) {
            return Ok(false);
        }
        match lane.pick_in_turn(place, ticket, explicit, failed) {
            Ok(claim) => {
                exchange.claimed(lane, claim);
                // The next one's turn.
                waiting.place = None;
                return Ok(true);
            }
            Err(PickError::Full) => {}
            Err(PickError::Closed | PickError::Empty) => return Ok(false),
        }
        if Instant::now() >= until {
            queue.timed_out.fetch_add(1, Relaxed);
            return Err(ProxyError::QueueTimeout);
        }
        let look = if place.is_first() {
            until.min(Instant::now() + LOOK)
        } else {
            until
        };
        tokio::select! {
            () = place.turn() => {}
            () = tokio::time::sleep_until(look.into()) => {}
            () = published.as_mut() => {
                published.set(worker.released.notified());
                published.as_mut().enable();
            }
        }
    }
}

impl Waiting {
    pub(super) const fn new(until: Instant) -> Self {
        Self { place: None, until }
    }
}
