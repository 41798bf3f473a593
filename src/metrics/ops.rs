//! The operations log: what happened to the proxy, as compact text on stderr. Requests are in the access log.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variable that goes over `log.level`; it also takes directives (`info,cutover::proxy=debug`).
pub const VARIABLE: &str = "CUTOVER_LOG";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why the operations log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// `log.level` is not a level.
    #[error("log.level = \"{0}\" is not a level; use off, error, warn, info, debug or trace")]
    Level(String),
    /// `$CUTOVER_LOG` is neither a level nor directives.
    #[error(
        "$CUTOVER_LOG = \"{value}\" cannot be used ({why}); use off, error, warn, info, debug, trace or directives such as `info,cutover::proxy=debug`"
    )]
    Variable {
        /// What it is.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else already receives the process's log.
    #[error("the operations log was set up already")]
    Already,
}

/// Send the operations log to stderr from now on, for the whole process. In color only on a terminal without
/// `NO_COLOR`.
///
/// # Errors
/// A level that is none, here or in `$CUTOVER_LOG`; a second call.
pub fn init(level: &str) -> Result<(), OpsError> {
    let variable = std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
    let filter = filter(level, variable.as_deref())?;
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_ansi(color && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish()
        .try_init()
        .map_err(|_| OpsError::Already)
}

/// Whether `level` may stand in `log.level`.
///
/// # Errors
/// It is not a level.
pub fn check_level(level: &str) -> Result<(), OpsError> {
    if LEVELS.contains(&level) {
        Ok(())
    } else {
        Err(OpsError::Level(level.to_owned()))
    }
}

/// The variable wins, unless it is empty; the level must be right all the same.
fn filter(level: &str, variable: Option<&str>) -> Result<EnvFilter, OpsError> {
    check_level(level)?;
    let Some(value) = variable.filter(|value| !value.trim().is_empty()) else {
        // h2 tells of every frame; whoever wants that says so in the variable.
        return Ok(EnvFilter::new(match level {
            "debug" => "debug,h2=info",
            "trace" => "trace,h2=info",
            other => other,
        }));
    };
    let bad = |why: &str| OpsError::Variable {
        value: value.to_owned(),
        why: why.to_owned(),
    };
    for part in value.split(',').map(str::trim) {
        // The filter would take any bare word for the name of a module, and then log nothing.
        if !part.contains(['=', '[', ':']) && !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(bad(&format!("`{part}` is not a level")));
        }
    }
    EnvFilter::try_new(value).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test panics to fail")]
    use super::*;

    #[test]
    fn every_level_is_one() {
        for level in LEVELS {
            let said = filter(level, None).unwrap().to_string();
            assert!(said.split(',').any(|part| part == level), "{said}");
        }
    }

    #[test]
    fn a_bad_level_is_refused_with_what_to_write() {
        for level in ["", "INFO ", "verbose", "info,debug", "9"] {
            let error = filter(level, None).unwrap_err().to_string();
            assert!(
                error.contains(level) && error.contains("debug or trace"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_variable_wins_unless_it_is_empty() {
        assert_eq!(filter("info", Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter("warn", Some(" ")).unwrap().to_string(), "warn");
        let directives = filter("info", Some("warn,cutover::proxy=trace"))
            .unwrap()
            .to_string();
        assert!(
            directives.contains("cutover::proxy=trace") && directives.contains("warn"),
            "{directives}"
        );
    }

    #[test]
    fn a_bad_variable_is_named() {
        for value in ["loud", "info,loud", "cutover=loud", "info,,"] {
            let error = filter("info", Some(value)).unwrap_err().to_string();
            assert!(error.contains("$CUTOVER_LOG") && error.contains(value), "{error}");
        }
        assert!(filter("loud", Some("info")).is_err());
    }
}
