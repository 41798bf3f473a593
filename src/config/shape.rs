//! Keys, types, names and ranges of a parsed document against the schema; `${VAR}` filled in on the way.
//!
//! Whatever is wrong is reported and taken out, so that what stays always fits `raw` and the later steps can
//! look for further mistakes.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Findings, did_you_mean, quoted};

/// The environment, as a function so that tests and `check` decide what it holds.
pub(super) type Env<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// Check and clean a whole document.
pub(super) fn check(
    table: &mut Spanned<DeTable<'_>>,
    schema: &Value,
    findings: &mut Findings<'_>,
    env: &Env<'_>,
) {
    let mut shape = Shape {
        findings,
        env,
        path: Vec::new(),
        places: Vec::new(),
    };
    let span = table.span();
    shape.table(table.get_mut(), schema, &span);
}

struct Shape<'a, 't, 'e> {
    findings: &'a mut Findings<'t>,
    env: &'a Env<'e>,
    /// The keys down to here; elements of arrays add none.
    path: Vec<String>,
    /// For each key of `path`, whether its table is an element of an array.
    places: Vec<bool>,
}

impl Shape<'_, '_, '_> {
    fn table(&mut self, table: &mut DeTable<'_>, schema: &Value, span: &Range<usize>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema
            .get("additionalProperties")
            .filter(|others| *others != &Value::Bool(false));
        self.required(table, schema, span);
        for (key, mut value) in std::mem::take(table) {
            let name: &str = key.get_ref();
            let Some(sub) = properties.and_then(|known| known.get(name)).or(others) else {
                self.unknown(name, &key.span(), value.get_ref(), schema);
                continue;
            };
            self.path.push(name.to_owned());
            self.places.push(false);
            if self.value(&mut value, sub) {
                table.insert(key, value);
            } else {
                self.findings.mark_broken(&self.path);
            }
            self.path.pop();
            self.places.pop();
        }
    }

    /// Whether the value may stay.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &Value) -> bool {
        let span = value.span();
        let Some(allowed) = schema.get("type") else {
            return self.any(value);
        };
        let allows = |kind: &str| match allowed {
            Value::Array(kinds) => kinds.iter().any(|one| one == kind),
            one => one == kind,
        };
        match value.get_mut() {
            DeValue::String(text) if allows("string") => match self.expand(text, &span) {
                Some(expanded) => {
                    *text = expanded.into();
                    self.known_name(text, &span, schema)
                }
                None => false,
            },
            DeValue::Integer(number) if allows("integer") => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.in_range(parsed, &number.to_string(), &span, schema)
            }
            DeValue::Integer(_) | DeValue::Float(_) if allows("number") => self.number(value, schema),
            DeValue::Boolean(_) if allows("boolean") => true,
            DeValue::Array(items) if allows("array") => {
                if items.is_empty() && schema.get("minItems").is_some() {
                    self.missing(&self.path.join("."), &span);
                    return false;
                }
                let item = schema.get("items").unwrap_or(&Value::Bool(true));
                if let Some(element) = self.places.last_mut() {
                    *element = true;
                }
                let keep: Vec<bool> = items.iter_mut().map(|one| self.value(one, item)).collect();
                if keep.contains(&false) {
                    self.findings.mark_broken(&self.path);
                    let kept = items.iter().zip(keep).filter(|(_, keep)| *keep);
                    *items = kept.map(|(one, _)| one.clone()).collect();
                }
                true
            }
            DeValue::Table(table) if allows("object") => {
                if table.is_empty() && schema.get("minProperties").is_some() {
                    self.missing(&self.path.join("."), &span);
                    return false;
                }
                self.table(table, schema, &span);
                true
            }
            _ => {
                self.wrong_type(value, schema);
                false
            }
        }
    }

    /// A value of any type: what JSON can hold.
    fn any(&mut self, value: &mut Spanned<DeValue<'_>>) -> bool {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => match self.expand(text, &span) {
                Some(expanded) => {
                    *text = expanded.into();
                    true
                }
                None => false,
            },
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.in_range(parsed, &number.to_string(), &span, &Value::Null)
            }
            DeValue::Float(number) if !number.as_str().ends_with(['f', 'n']) => true,
            DeValue::Boolean(_) => true,
            DeValue::Array(items) => {
                let mut all = true;
                for item in items.iter_mut() {
                    all &= self.any(item);
                }
                all
            }
            DeValue::Table(table) => {
                let mut all = true;
                for (_, value) in table.iter_mut() {
                    all &= self.any(value);
                }
                all
            }
            DeValue::Float(_) | DeValue::Datetime(_) => {
                let message = format!("{} cannot be compared with JSON", self.key());
                let hint = "write a string, a number, a boolean, an array or a table".to_owned();
                self.findings.error(&span, "wrong_type", message, hint);
                false
            }
        }
    }

    fn required(&mut self, table: &DeTable<'_>, schema: &Value, span: &Range<usize>) {
        let names = schema.get("required").and_then(Value::as_array);
        for name in names.into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(name) {
                let mut path = self.path.clone();
                path.push(name.to_owned());
                self.missing(&path.join("."), span);
            }
        }
    }

    fn missing(&mut self, path: &str, span: &Range<usize>) {
        let (message, hint) = match path {
            "listener" => (
                "no listener: there is nowhere for clients to connect".to_owned(),
                "add `[[listener]]` with `address = \"127.0.0.1:8080\"`".to_owned(),
            ),
            "app" => (
                "no app: there is nothing to send requests to".to_owned(),
                "add `[app.web]` with `blue = [\"127.0.0.1:8001\"]` and `green = [\"127.0.0.1:8002\"]`"
                    .to_owned(),
            ),
            _ => {
                let name = path.rsplit('.').next().unwrap_or(path);
                (
                    format!("{} needs `{name}`", self.title()),
                    format!("add `{name} = …`"),
                )
            }
        };
        self.findings.error(span, "missing_key", message, hint);
    }

    fn unknown(&mut self, name: &str, span: &Range<usize>, value: &DeValue<'_>, schema: &Value) {
        if self.findings.only_counted() {
            return;
        }
        let mut path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        path.push(name);
        if not_built(&path) {
            let full = path.join(".");
            let (what, how) = match value {
                DeValue::Table(_) => (format!("`[{full}]`"), "table"),
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                    (format!("`[[{full}]]`"), "table")
                }
                _ => (format!("`{full}`"), "key"),
            };
            let message = format!("{what} is not built in this version: remove it");
            let hint = format!("the {how} is known, but nothing would act on it");
            self.findings.error(span, "not_built", message, hint);
            return;
        }
        let message = format!("unknown key {} in {}", quoted(name), self.title());
        let known = schema.get("properties").and_then(Value::as_object);
        let names = || known.into_iter().flatten().map(|(name, _)| name.as_str());
        let hint = elsewhere(&path)
            .or_else(|| did_you_mean(name, names()))
            .or_else(|| self.below(name, schema))
            .unwrap_or_else(|| format!("known here: {}", names().collect::<Vec<_>>().join(", ")));
        self.findings.error(span, "unknown_key", message, hint);
    }

    /// A key that a table below has, as `interval` of `[app.web.health]` in `[app.web]`, misspelt or not.
    fn below(&self, name: &str, schema: &Value) -> Option<String> {
        let known = schema.get("properties")?.as_object()?;
        for exact in [true, false] {
            for (table, sub) in known {
                let Some(names) = sub.get("properties").and_then(Value::as_object) else {
                    continue;
                };
                let path = self.path.iter().chain([table]).cloned().collect::<Vec<_>>();
                let path = quoted(&path.join("."));
                let path = path.trim_matches('`');
                if exact && names.contains_key(name) {
                    return Some(format!("`{name}` belongs in `[{path}]`"));
                }
                if !exact && let Some(hint) = did_you_mean(name, names.keys().map(String::as_str)) {
                    return Some(format!("{} (in `[{path}]`)", hint.trim_end_matches('?')));
                }
            }
        }
        None
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, schema: &Value) {
        let expected = expected(schema);
        let found = value.get_ref();
        let message = format!(
            "{} must be {expected}, not {}",
            self.key(),
            article(found.type_str())
        );
        let hint = match found {
            DeValue::Integer(_) if expected == "a string" && schema.get("pattern").is_some() => {
                Some(format!("with a unit: `\"{}s\"`", plain(found)))
            }
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) if expected == "a string" => {
                Some(format!("in quotes: `\"{}\"`", plain(found)))
            }
            DeValue::String(text) if expected == "an integer" && text.parse::<i64>().is_ok() => {
                Some(format!("without quotes: `{text}`"))
            }
            DeValue::String(text) if expected == "a number" && text.parse::<f64>().is_ok() => {
                Some(format!("without quotes: `{text}`"))
            }
            DeValue::String(text) if expected == "a boolean" && matches!(text.as_ref(), "true" | "false") => {
                Some(format!("without quotes: `{text}`"))
            }
            DeValue::String(text) if expected == "an array" => {
                let text = quoted(text);
                Some(format!("in brackets: `[\"{}\"]`", text.trim_matches('`')))
            }
            DeValue::Table(_) if expected == "an array" => {
                Some(format!("with double brackets: `[[{}]]`", self.path.join(".")))
            }
            _ => None,
        };
        self.findings.error(&value.span(), "wrong_type", message, hint);
    }

    /// Whether a string is one of the names that its key allows, if it allows only some.
    fn known_name(&mut self, text: &str, span: &Range<usize>, schema: &Value) -> bool {
        let Some(names) = schema.get("enum").and_then(Value::as_array) else {
            return true;
        };
        let names = || names.iter().filter_map(Value::as_str);
        if names().any(|name| name == text) {
            return true;
        }
        let list = names()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("{} cannot be {}", self.key(), quoted(text));
        let hint = did_you_mean(text, names()).unwrap_or_else(|| format!("one of {list}"));
        self.findings.error(span, "bad_value", message, hint);
        false
    }

    fn in_range(&mut self, number: Option<i64>, written: &str, span: &Range<usize>, schema: &Value) -> bool {
        let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(i64::MIN);
        let most = schema.get("maximum").and_then(Value::as_i64).unwrap_or(i64::MAX);
        if number.is_some_and(|number| (least..=most).contains(&number)) {
            return true;
        }
        let message = match (least, most) {
            (i64::MIN, _) => format!("{} is too large a number: {}", self.key(), quoted(written)),
            (_, i64::MAX) => format!("{} must be {least} or more, not {written}", self.key()),
            _ => format!("{} must be {least} to {most}, not {written}", self.key()),
        };
        self.findings.error(span, "out_of_range", message, None);
        false
    }

    /// A number with or without a fraction, within the bounds of the schema.
    fn number(&mut self, value: &Spanned<DeValue<'_>>, schema: &Value) -> bool {
        let written = plain(value.get_ref());
        let bound = |key| schema.get(key).and_then(Value::as_f64);
        let (least, most) = (
            bound("minimum").unwrap_or(f64::MIN),
            bound("maximum").unwrap_or(f64::MAX),
        );
        // TOML has `nan` and `inf`: neither is in any range.
        let number = written.replace('_', "").parse::<f64>();
        if number.is_ok_and(|number| (least..=most).contains(&number)) {
            return true;
        }
        let message = format!("{} must be {least} to {most}, not {written}", self.key());
        self.findings.error(&value.span(), "out_of_range", message, None);
        false
    }

    /// The text with each `${NAME}` replaced; `$${` stands for `${`. None after a mistake.
    fn expand(&mut self, text: &str, span: &Range<usize>) -> Option<String> {
        // Of a deploy, `${VAR}` is the environment's of whoever runs the step (`build::deploy`).
        if self.path.len() > 3 && self.path[0] == "app" && self.path[2] == "deploy" {
            return Some(text.to_owned());
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut good = true;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let name = inside.split('}').next().unwrap_or_default();
            let valid = name.len() < inside.len()
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !valid {
                let message = format!("{} has a `${{` that no variable name and `}}` follow", self.key());
                let hint =
                    "`${NAME}` is the environment's; for the characters themselves write `$${`".to_owned();
                self.findings.error(span, "bad_variable", message, hint);
                return None;
            }
            match (self.env)(name) {
                Some(value) => out.push_str(&value),
                None => {
                    let message = format!("the environment variable `{name}` is not set");
                    let hint =
                        format!("set it, or write `$${{{name}}}` if the characters themselves are meant");
                    self.findings.error(span, "unset_variable", message, hint);
                    good = false;
                }
            }
            rest = &inside[name.len() + 1..];
        }
        out.push_str(rest);
        good.then_some(out)
    }

    /// The key being looked at, for a message.
    fn key(&self) -> String {
        quoted(self.path.last().map_or("", String::as_str))
    }

    /// The table being looked at, as its header is written.
    fn title(&self) -> String {
        if self.path.is_empty() {
            return "the file".to_owned();
        }
        let path = quoted(&self.path.join("."));
        let path = path.trim_matches('`');
        if self.places.last() == Some(&true) {
            format!("`[[{path}]]`")
        } else {
            format!("`[{path}]`")
        }
    }
}

/// Whether interface.md documents the key but nothing acts on it yet.
fn not_built(path: &[&str]) -> bool {
    matches!(path, ["fleet"])
}

/// Where a key that is written in the wrong table belongs.
fn elsewhere(path: &[&str]) -> Option<String> {
    match path {
        ["listeners"] => Some("write `[[listener]]`".to_owned()),
        ["apps"] => Some("write `[app.NAME]`".to_owned()),
        ["app", app, "services"] => Some(format!("write `[app.{app}.service.NAME]`")),
        ["app", _, "host"] => Some("did you mean `hosts`?".to_owned()),
        ["app", app, "health", "revision_header" | "revision_json"]
        | [
            "app",
            app,
            "service",
            _,
            "health",
            "revision_header" | "revision_json",
        ] => Some(format!("it belongs in `[app.{app}]`, for all services")),
        ["app", _, "path" | "path_prefix" | "strip_prefix"] => {
            Some("paths are of services: write `[app.NAME.service.NAME]`".to_owned())
        }
        _ => None,
    }
}

fn expected(schema: &Value) -> &'static str {
    match schema.get("type") {
        Some(Value::Array(kinds)) => match kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..] {
            ["string", "array"] => "a string or an array",
            ["boolean", "string"] => "a boolean or a string",
            ["object", "array"] => "a table or an array of tables",
            _ => "a string or an integer",
        },
        Some(Value::String(kind)) => match kind.as_str() {
            "string" => "a string",
            "integer" => "an integer",
            "number" => "a number",
            "boolean" => "a boolean",
            "array" => "an array",
            _ => "a table",
        },
        _ => "another type",
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(is) => is.to_string(),
        _ => String::new(),
    }
}
