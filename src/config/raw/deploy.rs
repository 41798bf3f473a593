//! `[app.NAME.deploy]` as written: a few keys of its own, and one table for each step, by the step's name.
//!
//! `${VAR}` stays as written here: it is filled in when the step runs, from the environment of `cutover deploy`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{At, Color, DurationText};

/// The table itself. Every key that is none of its own is the name of a step.
#[derive(Debug, Default)]
pub(in crate::config) struct Deploy {
    pub(in crate::config) steps: Option<At<Vec<At<String>>>>,
    pub(in crate::config) smoke: Option<Smoke>,
    pub(in crate::config) on_failure: Option<OnFailure>,
    pub(in crate::config) env: Option<BTreeMap<At<String>, At<String>>>,
    pub(in crate::config) cwd: Option<At<String>>,
    pub(in crate::config) lease: Option<At<DurationText>>,
    pub(in crate::config) step: BTreeMap<At<String>, Step>,
}

impl<'de> Deserialize<'de> for Deploy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Deploy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of steps")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Deploy, A::Error> {
                let mut deploy = Deploy::default();
                while let Some(key) = map.next_key::<At<String>>()? {
                    match key.get().as_str() {
                        "steps" => deploy.steps = Some(map.next_value()?),
                        "smoke" => deploy.smoke = Some(map.next_value()?),
                        "on_failure" => deploy.on_failure = Some(map.next_value()?),
                        "env" => deploy.env = Some(map.next_value()?),
                        "cwd" => deploy.cwd = Some(map.next_value()?),
                        "lease" => deploy.lease = Some(map.next_value()?),
                        _ => drop(deploy.step.insert(key, map.next_value()?)),
                    }
                }
                Ok(deploy)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl JsonSchema for Deploy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Deploy".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "What `cutover deploy` does. Every other key is a step, by its name.",
            "properties": {
                "steps": {
                    "type": "array",
                    "description": "The steps in their order; one that has nothing to do is skipped and says so.",
                    "items": { "type": "string" },
                    "default": crate::config::Deploy::DEFAULT_STEPS,
                },
                "smoke": generator.subschema_for::<Smoke>(),
                "on_failure": generator.subschema_for::<OnFailure>(),
                "env": {
                    "type": "object",
                    "description": "Environment of every step.",
                    "additionalProperties": { "type": "string" },
                },
                "cwd": {
                    "type": "string",
                    "description": "Where commands run; default: the folder of the config file.",
                },
                "lease": {
                    "type": "string",
                    "description": "How long after its last sign of life a deploy still holds the app.",
                    "default": "30s",
                },
            },
            "additionalProperties": generator.subschema_for::<Step>(),
        })
    }
}

/// `[[app.NAME.deploy.smoke]]`, or one step of that name.
#[derive(Debug)]
pub(in crate::config) enum Smoke {
    Probes(Vec<SmokeProbe>),
    Step(Box<Step>),
}

impl<'de> Deserialize<'de> for Smoke {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Smoke;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("probes, or one step")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Smoke, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map(Smoke::Probes)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Smoke, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Smoke::Step)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Smoke {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Smoke".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let probe = generator.subschema_for::<SmokeProbe>();
        let mut schema = generator.subschema_for::<Step>();
        schema.insert("type".to_owned(), serde_json::json!(["object", "array"]));
        schema.insert("items".to_owned(), probe.to_value());
        schema
    }
}

/// One request to the target color, and what its answer must be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SmokeProbe {
    /// METHOD PATH, as `POST /v1/login`.
    #[schemars(required)]
    pub(in crate::config) request: Option<At<String>>,
    /// Headers of the request.
    pub(in crate::config) headers: Option<BTreeMap<At<String>, At<String>>>,
    /// Its body.
    pub(in crate::config) body: Option<At<String>>,
    /// What the answer must be.
    #[serde(default)]
    pub(in crate::config) expect: Expect,
    /// Values of this answer for the next probes, by name: a JSON pointer each.
    pub(in crate::config) capture: Option<BTreeMap<At<String>, At<String>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Expect {
    /// Statuses that pass: "200", "200-299,404".
    #[schemars(extend("default" = "200-299"))]
    pub(in crate::config) status: Option<At<String>>,
    /// JSON pointers into the answer, and what they must equal.
    pub(in crate::config) json: Option<BTreeMap<At<String>, serde_json::Value>>,
    /// Headers of the answer, and what they must equal.
    pub(in crate::config) header: Option<BTreeMap<At<String>, At<String>>>,
    /// Must match the body; "" = no condition.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) body_regex: Option<At<String>>,
    /// The whole answer must have come by then.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) within: Option<At<DurationText>>,
}

/// One step.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Step {
    /// A command, or several one after the other; a list within the list is one command, word by word.
    pub(in crate::config) run: Option<At<Run>>,
    /// A URL that gets a POST; any 2xx passes.
    pub(in crate::config) webhook: Option<At<String>>,
    /// Then it is killed, with all that it started.
    pub(in crate::config) timeout: Option<At<DurationText>>,
    /// Further environment.
    pub(in crate::config) env: Option<BTreeMap<At<String>, At<String>>>,
    /// Where the command runs.
    pub(in crate::config) cwd: Option<At<String>>,
    /// Give the command to `sh -c`.
    #[schemars(extend("default" = false))]
    pub(in crate::config) shell: Option<At<bool>>,
    /// Ask before: true, or the question.
    pub(in crate::config) confirm: Option<At<Confirm>>,
    /// Only when the target is this color.
    pub(in crate::config) when: Option<At<Color>>,
    /// `healthy`: how long it must stay so.
    #[schemars(extend("default" = "0"))]
    pub(in crate::config) settle: Option<At<DurationText>>,
    /// What to do when this step fails, in place of the deploy's own.
    pub(in crate::config) on_failure: Option<OnFailure>,
}

/// `run`
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum Run {
    One(String),
    Several(Vec<Command>),
}

/// One command in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum Command {
    Text(String),
    Words(Vec<String>),
}

impl JsonSchema for Run {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Run".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": { "type": ["string", "array"], "items": { "type": "string" } },
        })
    }
}

/// `confirm`
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum Confirm {
    Yes(bool),
    Question(String),
}

impl JsonSchema for Confirm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Confirm".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"] })
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OnFailure {
    /// A command whose last lines are shown.
    pub(in crate::config) logs: Option<At<String>>,
    /// A command that is run.
    pub(in crate::config) run: Option<At<String>>,
}
