//! `[app.NAME.retry]` and `[app.NAME.balance]`.

use super::Build;
use crate::config::model::Retry;
use crate::config::raw;

impl Build<'_, '_, '_> {
    /// Ranges are the schema's.
    pub(super) fn retry(&mut self, raw: &raw::Retry) -> Retry {
        Retry {
            attempts: raw
                .attempts
                .as_ref()
                .map_or(2, |at| u32::try_from(*at.get()).unwrap_or(2)),
            budget: raw.budget.as_ref().map_or(0.2, |at| *at.get()),
        }
    }
}
