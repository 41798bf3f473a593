//! `[[app.NAME.rule]]`, and conditions in CEL with the place of their mistakes.

use super::Build;
use crate::config::model::{REQUEST_WORDS, Rule, RuleColor, Test};
use crate::config::raw::{self, At};
use crate::expr::{Condition, Mistake, Vocabulary};

/// Rules of an app; each is looked at for each request.
const RULES_MAX: usize = 256;

impl Build<'_, '_, '_> {
    pub(super) fn rules(&mut self, raw: Option<&Vec<raw::Rule>>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (at, raw) in raw.into_iter().flatten().enumerate() {
            // A key that is missing or of the wrong type has been reported.
            let (Some(when), Some(color)) = (&raw.when, &raw.color) else {
                continue;
            };
            if at == RULES_MAX {
                let message = format!("an app has {RULES_MAX} rules at most");
                self.findings.error(&when.span(), "out_of_range", message, None);
                break;
            }
            rules.extend(self.rule(when, *color.get()));
        }
        rules
    }

    fn rule(&mut self, at: &At<String>, color: raw::RuleColor) -> Option<Rule> {
        let when = self.condition("when", at, REQUEST_WORDS)?;
        let native = match Test::of(&when) {
            Ok(native) => native,
            Err(why) => {
                let message = format!("`when` cannot be used: {why}");
                self.findings.error(&at.span(), "bad_condition", message, None);
                return None;
            }
        };
        let dear = ["matches", "inNetwork"].into_iter().find(|name| when.calls(name));
        if let (None, Some(name)) = (&native, dear) {
            // The interpreter would read the pattern anew for each request.
            let message = format!("`{name}` does not go together with arithmetic or computed texts");
            let hint = "make two rules of it, or compare with texts that are written out".to_owned();
            self.findings.error(&at.span(), "bad_condition", message, hint);
            return None;
        }
        Some(Rule {
            when,
            native,
            color: match color {
                raw::RuleColor::Blue => RuleColor::Blue,
                raw::RuleColor::Green => RuleColor::Green,
                raw::RuleColor::Candidate => RuleColor::Candidate,
                raw::RuleColor::Active => RuleColor::Active,
            },
        })
    }

    /// A condition in CEL; the mistake of a bad one is reported where it is inside the text.
    pub(super) fn condition(
        &mut self,
        key: &str,
        at: &At<String>,
        vocabulary: &'static Vocabulary,
    ) -> Option<Condition> {
        match Condition::compile(at.get(), vocabulary) {
            Ok(condition) => Some(condition),
            Err(Mistake { message, span, hint }) => {
                let place = self.findings.inside(&at.span(), at.get(), &span);
                let message = format!("`{key}` cannot be used: {message}");
                self.findings.error(&place, "bad_condition", message, hint);
                None
            }
        }
    }
}
