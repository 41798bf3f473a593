//! What the copies of requests to the standby came to.

use super::super::AppGauges;
use super::super::names;
use super::super::text::{Text, labels};

pub(super) fn write_mirrors(text: &mut Text, apps: &[AppGauges]) {
    text.family(&names::MIRRORED);
    for app in apps {
        let of = &app.mirrored;
        for (result, count) in [
            ("same", of.same),
            ("different", of.different),
            ("failed", of.failed),
            ("dropped", of.dropped),
        ] {
            text.sample(
                &names::MIRRORED,
                &labels(&names::MIRRORED, &[&app.app, result]),
                count,
            );
        }
    }
    text.family(&names::MIRROR_SECONDS);
    for app in apps {
        for (side, micros) in [
            ("active", app.mirrored.active_micros),
            ("standby", app.mirrored.standby_micros),
        ] {
            let labels = labels(&names::MIRROR_SECONDS, &[&app.app, side]);
            text.sample(&names::MIRROR_SECONDS, &labels, micros as f64 / 1e6);
        }
    }
}
