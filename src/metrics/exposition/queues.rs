//! The lines in which requests wait for room at an endpoint.

use super::super::AppGauges;
use super::super::names;
use super::super::text::{Text, labels};

pub(super) fn write_queues(text: &mut Text, apps: &[AppGauges]) {
    let queues = || {
        apps.iter()
            .flat_map(|app| app.queues.iter().map(move |queue| (app.app.as_str(), queue)))
    };
    text.family(&names::QUEUED);
    for (app, queue) in queues() {
        let labels = labels(&names::QUEUED, &[app, &queue.service, queue.color.as_str()]);
        text.sample(&names::QUEUED, &labels, queue.waiting);
    }
    text.family(&names::QUEUE_REFUSED);
    for (app, queue) in queues() {
        for (reason, count) in [("full", queue.overflowed), ("timeout", queue.timed_out)] {
            let values = [app, &queue.service, queue.color.as_str(), reason];
            text.sample(
                &names::QUEUE_REFUSED,
                &labels(&names::QUEUE_REFUSED, &values),
                count,
            );
        }
    }
}
