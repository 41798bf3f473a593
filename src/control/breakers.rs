//! What requests find out about endpoints, as events: one is left alone, one is back.

use std::collections::BTreeMap;

use super::controller::Controller;
use super::view::EventKind;

/// By endpoint that was ever ejected: how often, and whether it still is. What was told last.
pub(super) type Breakers = BTreeMap<u64, (u64, bool)>;

impl Controller {
    /// Tell what has changed since the last look. Both are told of one that was ejected and came back in between.
    pub(super) fn watch_breakers(&self) {
        let table = self.published.load_full();
        let mut now = Breakers::new();
        let mut before = self.breakers.borrow_mut();
        for app in &table.apps {
            for service in &app.services {
                let balance = &service.settings.balance;
                let members = service.pools.iter().flat_map(|(_, pool)| &pool.members);
                for endpoint in members.map(|member| &member.endpoint) {
                    let (times, is_out) = endpoint.breaker.story();
                    if times == 0 {
                        continue;
                    }
                    let (told, was_out) = before.get(&endpoint.id).copied().unwrap_or_default();
                    let key = &endpoint.key;
                    let who = format!("{} {} {} {}", key.app, key.service, key.color, endpoint.label);
                    if times > told {
                        let message = format!(
                            "{who}: ejected: {} failures in a row; the others take its requests, after {:?} one is tried",
                            balance.failures, balance.ejected
                        );
                        self.tell(EventKind::Ejected, Some(&app.name), None, message);
                    }
                    if !is_out && (was_out || times > told) {
                        let message = format!("{who}: returned: it answers again");
                        self.tell(EventKind::Returned, Some(&app.name), None, message);
                    }
                    now.insert(endpoint.id, (times, is_out));
                }
            }
        }
        *before = now;
    }
}
