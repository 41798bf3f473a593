//! `balance` and `retry` of an app or service, in the words of the file.

use super::Flat;
use crate::config::model::{Balance, Retry};

pub(super) fn resilience(key: &impl Fn(&str) -> String, balance: &Balance, retry: &Retry, flat: &mut Flat) {
    flat.put(&key("balance.policy"), balance.policy.as_str());
    flat.put(&key("balance.max_in_flight"), balance.max_in_flight);
    flat.put(&key("balance.queue"), balance.queue);
    flat.time(&key("balance.queue_timeout"), balance.queue_timeout);
    flat.put(&key("balance.breaker.failures"), balance.failures);
    flat.time(&key("balance.breaker.ejected"), balance.ejected);
    flat.put(&key("retry.attempts"), retry.attempts);
    flat.put(&key("retry.budget"), retry.budget);
}
