//! Texts completed when a step runs: `{color}` and its kin, `${VAR}` of the operator's environment.
//!
//! One pass from left to right: what is filled in is never looked at again, so no value can bring a placeholder along.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::CommandLine;
use crate::rollout::Color;

/// The environment.
pub(crate) type Env<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// Shorter values are not masked: `1` or `no` would hide half of every output.
const SECRET_MIN: usize = 4;

/// What texts are completed with.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pub app: String,
    pub color: Color,
    pub other: Color,
    pub revision: Option<String>,
    /// What stands behind `--`.
    pub args: Vec<String>,
    /// Taken from the answers of smoke probes.
    pub captured: BTreeMap<String, String>,
    /// Values of `${VAR}` that were used: masked wherever something is shown.
    pub secrets: BTreeSet<String>,
}

impl Values {
    /// `text` with everything filled in.
    ///
    /// # Errors
    /// Says what is missing and how to give it.
    pub(crate) fn fill(&mut self, text: &str, env: &Env<'_>) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['$', '{']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                out.push_str("${");
                rest = after;
            } else if let Some(name) = rest.strip_prefix("${").and_then(name_before_brace) {
                let value = env(name).ok_or_else(|| {
                    format!("the environment variable `{name}` is not set here, and the step needs it")
                })?;
                out.push_str(&value);
                if value.len() >= SECRET_MIN {
                    self.secrets.insert(value);
                }
                rest = &rest[name.len() + 3..];
            } else if let Some(name) = rest.strip_prefix('{').and_then(name_before_brace)
                && let Some(value) = self.value(name)?
            {
                out.push_str(&value);
                rest = &rest[name.len() + 2..];
            } else {
                // Not ours: a `$` or a brace that means itself, as in JSON.
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Result<Option<String>, String> {
        Ok(Some(match name {
            "app" => self.app.clone(),
            "color" => self.color.to_string(),
            "other" => self.other.to_string(),
            "revision" => self
                .revision
                .clone()
                .ok_or_else(|| "the step needs `{revision}`: say it with --revision R".to_owned())?,
            "args" => self.args.join(" "),
            captured => return Ok(self.captured.get(captured).cloned()),
        }))
    }

    /// Program and arguments of a command. Values stay what they are, whatever characters they hold: without a shell
    /// they are words of their own, and a shell gets them as variables, never as a part of its script.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) fn command(&mut self, line: &CommandLine, env: &Env<'_>) -> Result<Vec<String>, String> {
        match line {
            CommandLine::Words(words) => {
                let mut filled = Vec::new();
                for word in words {
                    if word == "{args}" {
                        filled.extend(self.args.iter().cloned());
                    } else {
                        filled.push(self.fill(word, env)?);
                    }
                }
                Ok(filled)
            }
            CommandLine::Shell(script) => {
                let script = self.script(script)?;
                let mut words = vec!["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()];
                words.extend(self.args.iter().cloned());
                Ok(words)
            }
        }
    }

    /// A script in which placeholders have become variables. Colors and the app's name are plain words and are put in as
    /// they are; a revision and arguments may hold anything.
    fn script(&self, script: &str) -> Result<String, String> {
        let mut out = String::with_capacity(script.len());
        let (mut single, mut double) = (false, false);
        let mut rest = script;
        while let Some(c) = rest.chars().next() {
            let placeholder = ["{app}", "{color}", "{other}", "{revision}", "{args}"]
                .into_iter()
                .find(|name| rest.starts_with(name) && !out.ends_with('$'));
            if let Some(placeholder) = placeholder {
                rest = &rest[placeholder.len()..];
                match placeholder {
                    "{app}" => out.push_str(&self.app),
                    "{color}" => out.push_str(self.color.as_str()),
                    "{other}" => out.push_str(self.other.as_str()),
                    _ if single => {
                        return Err(format!(
                            "`{placeholder}` stands in single quotes, where no shell can fill it in safely: use double ones"
                        ));
                    }
                    "{args}" => out.push_str(if double { "$*" } else { "\"$@\"" }),
                    _ if self.revision.is_none() => {
                        return Err("the step needs `{revision}`: say it with --revision R".to_owned());
                    }
                    _ if double => out.push_str("${CUTOVER_REVISION}"),
                    _ => out.push_str("\"${CUTOVER_REVISION}\""),
                }
                continue;
            }
            let mut taken = c.len_utf8();
            match c {
                '\\' if !single => taken += rest[taken..].chars().next().map_or(0, char::len_utf8),
                '\'' if !double => single = !single,
                '"' if !single => double = !double,
                _ => {}
            }
            out.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
        Ok(out)
    }

    /// A line without the values of `${VAR}`.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }
}

fn name_before_brace(text: &str) -> Option<&str> {
    let name = &text[..text.find('}')?];
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain.then_some(name)
}
