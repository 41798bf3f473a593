//! What chooses between the colors of an app, in the words of the file.

use super::{Flat, shown_time};
use crate::config::model::Traffic;

pub(super) fn traffic(app: &str, traffic: &Traffic, flat: &mut Flat) {
    let key = |rest: &str| format!("app.{app}.{rest}");
    flat.put(&key("affinity.key"), &traffic.affinity);
    if let Some(preview) = &traffic.preview {
        flat.put(&key("preview.header"), &preview.header);
        flat.put(
            &key("preview.cookie"),
            preview.cookie.as_deref().unwrap_or_default(),
        );
        let from = preview.from.iter();
        flat.list(
            &key("preview.from"),
            from.map(|network| format!("{}/{}", network.address, network.prefix)),
        );
    }
    flat.put(
        &key("failover"),
        traffic.failover.map_or_else(
            || "off".to_owned(),
            |after| format!("after {}", shown_time(after)),
        ),
    );
    flat.list(&key("skew.paths"), &traffic.skew);
    if let Some(mirror) = &traffic.mirror {
        flat.put(&key("mirror.percent"), mirror.percent);
        flat.list(&key("mirror.methods"), &mirror.methods);
        flat.put(&key("mirror.max_body"), mirror.max_body);
        flat.put(&key("mirror.max_in_flight"), mirror.max_in_flight);
    }
    if let Some(warmup) = &traffic.warmup {
        flat.put(&key("warmup.requests"), warmup.requests);
        flat.time(&key("warmup.max"), warmup.max);
        flat.list(&key("warmup.paths"), &warmup.paths);
        flat.put(&key("warmup.parallel"), warmup.parallel);
    }
    flat.put(&key("hold.requests"), traffic.hold.requests);
    flat.put(&key("hold.bytes"), traffic.hold.bytes);
    flat.put(&key("hold.release_rate"), traffic.hold.release_rate);
    for (at, rule) in traffic.rules.iter().enumerate() {
        // A condition may hold a secret; its color does not.
        let said = [(rule.color.as_str().to_owned(), rule.when.source().to_owned())];
        flat.secrets(&key(&format!("rule.{}", at + 1)), said);
    }
}
