//! The mirror of an app's state.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hue;
use super::watch::{Baking, Rolling};
use crate::rollout::{
    Activation, AppState, ByColor, Color, ColorState, Hold, Maintenance, Override, TRAIL_MAX, Weight,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    generation: u64,
    active: Hue,
    weight: u8,
    #[serde(default, skip_serializing_if = "is_zero")]
    salt: u64,
    #[serde(default, skip_serializing_if = "Paint::is_plain")]
    blue: Paint,
    #[serde(default, skip_serializing_if = "Paint::is_plain")]
    green: Paint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Holding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maintenance: Option<Away>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trail: Vec<Trod>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_by_rollback: Option<Hue>,
    switched_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bake: Option<Baking>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<Rolling>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Paint {
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    incarnation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redeployed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    overrides: BTreeMap<String, Set>,
    #[serde(skip_serializing_if = "is_false")]
    drained: bool,
    #[serde(skip_serializing_if = "is_false")]
    left: bool,
}

impl Paint {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(fact: &bool) -> bool {
    !*fact
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    endpoints: Vec<String>,
    file: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holding {
    since: Timestamp,
    max: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Away {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    since: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trod {
    color: Hue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    incarnation: u64,
    generation: u64,
}

impl From<&AppState> for State {
    fn from(state: &AppState) -> Self {
        Self {
            generation: state.generation,
            active: state.active.into(),
            weight: state.weight.percent(),
            salt: state.salt,
            blue: (&state.colors.blue).into(),
            green: (&state.colors.green).into(),
            hold: state.hold.map(|Hold { since, max }| Holding { since, max }),
            maintenance: state.maintenance.as_ref().map(|is| Away {
                message: is.message.clone(),
                since: is.since,
            }),
            trail: state.trail.iter().map(Trod::from).collect(),
            left_by_rollback: state.left_by_rollback.map(Hue::from),
            switched_at: state.switched_at,
            bake: state.bake.as_ref().map(Baking::from),
            rollout: state.rollout.as_ref().map(Rolling::from),
        }
    }
}

impl TryFrom<State> for AppState {
    type Error = String;

    fn try_from(state: State) -> Result<Self, String> {
        if state.generation == 0 {
            return Err("generation 0: the first one is 1".to_owned());
        }
        if state.trail.len() > TRAIL_MAX {
            return Err(format!(
                "a trail of {} activations: there are at most {TRAIL_MAX}",
                state.trail.len()
            ));
        }
        Ok(Self {
            generation: state.generation,
            active: state.active.into(),
            weight: Weight::candidate(state.weight)
                .ok_or_else(|| format!("weight {}: a candidate has 0 to 99 percent", state.weight))?,
            salt: state.salt,
            colors: ByColor {
                blue: state.blue.into(),
                green: state.green.into(),
            },
            hold: state.hold.map(|Holding { since, max }| Hold { since, max }),
            maintenance: state
                .maintenance
                .map(|Away { message, since }| Maintenance { message, since }),
            trail: state.trail.into_iter().map(Activation::from).collect(),
            left_by_rollback: state.left_by_rollback.map(Color::from),
            switched_at: state.switched_at,
            bake: state.bake.map(TryInto::try_into).transpose()?,
            rollout: state.rollout.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&ColorState> for Paint {
    fn from(color: &ColorState) -> Self {
        let overrides = color.overrides.iter().map(|(service, held)| {
            let set = Set {
                endpoints: held.endpoints.clone(),
                file: held.file.clone(),
            };
            (service.clone(), set)
        });
        Self {
            revision: color.revision.clone(),
            incarnation: color.incarnation,
            redeployed_at: color.redeployed_at,
            overrides: overrides.collect(),
            drained: color.drained,
            left: color.left,
        }
    }
}

impl From<Paint> for ColorState {
    fn from(paint: Paint) -> Self {
        let overrides = paint
            .overrides
            .into_iter()
            .map(|(service, Set { endpoints, file })| (service, Override { endpoints, file }));
        Self {
            revision: paint.revision,
            incarnation: paint.incarnation,
            redeployed_at: paint.redeployed_at,
            overrides: overrides.collect(),
            drained: paint.drained,
            left: paint.left,
        }
    }
}

impl From<&Activation> for Trod {
    fn from(was: &Activation) -> Self {
        Self {
            color: was.color.into(),
            revision: was.revision.clone(),
            incarnation: was.incarnation,
            generation: was.generation,
        }
    }
}

impl From<Trod> for Activation {
    fn from(trod: Trod) -> Self {
        Self {
            color: trod.color.into(),
            revision: trod.revision,
            incarnation: trod.incarnation,
            generation: trod.generation,
        }
    }
}
