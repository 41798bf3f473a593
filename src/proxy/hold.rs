//! Waiting for a hold to end.

use std::sync::Arc;

use http::request::Parts;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::worker::Worker;
use crate::routing::HoldQueue;

/// Wait for the hold to end, and then for the request's turn. No claim is held and no byte of the body is read
/// meanwhile.
pub(super) async fn wait(
    worker: &Worker,
    exchange: &Exchange,
    head: &Parts,
    queue: &Arc<HoldQueue>,
) -> Result<(), ProxyError> {
    let ticket = queue.enter(exchange.client_ip(), bytes_of(head));
    let ticket = ticket.ok_or(ProxyError::HoldOverflow)?;
    let released = worker.released.notified();
    // The table may have changed between the decision and here; the waiter is registered, so look again.
    let mut released = std::pin::pin!(released);
    released.as_mut().enable();
    if !worker.is_still_held(queue) {
        return Ok(());
    }
    loop {
        let outcome = tokio::time::timeout_at(queue.until.into(), released.as_mut()).await;
        if !worker.is_still_held(queue) {
            break;
        }
        match outcome {
            // Something else was published.
            Ok(()) => {
                released.set(worker.released.notified());
                released.as_mut().enable();
                if !worker.is_still_held(queue) {
                    break;
                }
            }
            // The controller releases before this; if it has not, it is in trouble, and so is this request.
            Err(_) => return Err(ProxyError::HoldOverflow),
        }
    }
    let turn = queue.turn();
    if !turn.is_zero() {
        tokio::time::sleep(turn).await;
    }
    drop(ticket);
    Ok(())
}

/// What a waiting request keeps in memory, about: its head.
pub(super) fn bytes_of(head: &Parts) -> usize {
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    target + fields
}
