//! The JSON Schema of the file: for editors (`cutover schema`), and what `shape` checks with.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::raw::File;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(no_null))
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value()
});

/// The JSON Schema (draft 2020-12) of the configuration file.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// The same without the copy.
pub(super) fn shared() -> &'static Value {
    &SCHEMA
}

/// TOML has no null: a key that may be left out is just not required.
fn no_null(schema: &mut schemars::Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(names)) = schema.get_mut("enum") {
        names.retain(|name| !name.is_null());
    }
    let only = match schema.get_mut("anyOf") {
        Some(Value::Array(any)) => {
            any.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
            match any.as_mut_slice() {
                [Value::Object(only)] => Some(std::mem::take(only)),
                _ => None,
            }
        }
        _ => None,
    };
    if let Some(only) = only {
        schema.remove("anyOf");
        for (key, value) in only {
            if schema.get(&key).is_none() {
                schema.insert(key, value);
            }
        }
    }
}
