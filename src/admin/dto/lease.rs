//! Leases: who holds an app for a deploy.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET`, `PUT` and `DELETE` of `/v1/apps/{app}/lease`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseDocument {
    /// `cutover.lease/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// The lease, if somebody holds the app.
    pub lease: Option<Lease>,
}

/// Somebody holds an app.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// What for.
    pub what: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since: String,
    /// When it ends, in seconds from now, unless it is renewed.
    pub expires_in_seconds: f64,
}

/// `PUT /v1/apps/{app}/lease`: take it, or renew it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeLease {
    /// The holder's own secret, 16 to 100 visible ASCII characters; the same one renews. Changes of the holder carry it
    /// in the header `Cutover-Lease`.
    pub id: String,
    /// What for.
    pub what: String,
    /// How long it lasts unless it is renewed, 1s to 1h.
    #[serde(default = "lease_time")]
    pub time: String,
}

fn lease_time() -> String {
    "30s".to_owned()
}

/// `DELETE /v1/apps/{app}/lease`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GiveLease {
    /// The holder's secret. Without it the lease is broken, whoever holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How the work ended.
    pub outcome: String,
}
