//! Where the planes meet: the controller publishes a [`RoutingTable`], the workers load it.
//!
//! Everything that a request needs to be routed is in one immutable table behind one pointer. The steps "which
//! service" ([`RoutingTable::find`]), "which color" ([`choose`]) and "which endpoint" ([`Lane::pick`]) are pure
//! functions of it, shared by the request path and by `explain`.

mod affinity;
mod asked;
mod beside;
mod bounded;
mod budget;
mod build;
mod choose;
mod hold;
mod matcher;
mod preview;
mod publish;
mod recent;
mod rules;
mod table;
#[cfg(test)]
mod tests;

pub use affinity::{Affinity, COOKIE, Newcomer};
pub use asked::{Asked, client_of};
pub use beside::{Beside, BesideCounts, CopyPermit};
pub use budget::RetryBudget;
pub use build::{AppInput, Built, Fixed, Resolved, gates, matcher, rebuild, with_app};
pub use choose::{Choice, From, Special, Unavailable, Why, choose, choose_with, peek_bucket};
pub use hold::HoldQueue;
pub use matcher::{HostBuffer, Matcher, Place};
pub use preview::{PreviewKey, Untrusted};
pub use publish::{Published, WorkerSignal};
pub use recent::Recent;
pub use rules::{Lack, holds};
pub use table::{
    AppRoute, Edge, Lane, Member, PaddedPoint, PickError, Pool, RoutingTable, ServiceRoute, Settings,
};
