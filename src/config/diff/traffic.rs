//! What chooses between the colors of an app, in the words of the file.

use super::Flat;
use crate::config::model::Traffic;

pub(super) fn traffic(app: &str, traffic: &Traffic, flat: &mut Flat) {
    let key = |rest: &str| format!("app.{app}.{rest}");
    flat.put(&key("affinity.key"), &traffic.affinity);
}
