//! The key of preview tokens, and tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::ask::Refusal;
use super::controller::Controller;
use super::handle::PreviewToken;
use crate::config::{Aim, Config};
use crate::routing::PreviewKey;

/// The file in the state directory.
const KEY_FILE: &str = "preview.key";

/// The longest life of a token: what is needed longer is an address or a listener.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl Controller {
    /// The key, read or made when the first app has a preview.
    pub(super) fn preview_key(&self, config: &Config) -> Option<Arc<PreviewKey>> {
        let any = config.apps.values().any(|app| app.traffic.preview.is_some());
        let mut key = self.preview_key.borrow_mut();
        if any && key.is_none() {
            let path = config.server.state_dir.join(KEY_FILE);
            match PreviewKey::load_or_create(&path) {
                Ok(made) => *key = Some(Arc::new(made)),
                Err(error) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "no key for preview tokens: they are refused until a reload finds one");
                }
            }
        }
        key.clone()
    }

    /// A token for a color of an app.
    pub(super) fn preview_token(&self, app: &str, aim: Aim, life: Duration) -> Result<PreviewToken, Refusal> {
        let config = self.config.borrow().clone();
        let Some(preview) = config.apps.get(app).and_then(|of| of.traffic.preview.as_ref()) else {
            let text = format!("app `{app}` has no preview: add `[app.{app}.preview]` to the config file");
            return Err(Refusal::Invalid(text));
        };
        if life.is_zero() || life > LIFE_MAX {
            let days = LIFE_MAX.as_secs() / (24 * 3600);
            return Err(Refusal::Invalid(format!(
                "a token lives more than 0 and at most {days} days"
            )));
        }
        let key = self.preview_key(&config).ok_or_else(|| {
            let path = config.server.state_dir.join(KEY_FILE);
            Refusal::Invalid(format!(
                "{} cannot be read or made; the log says why",
                path.display()
            ))
        })?;
        let expires = SystemTime::now() + life;
        Ok(PreviewToken {
            app: app.to_owned(),
            aim,
            token: key.sign(app, aim, expires),
            expires: Timestamp::try_from(expires).unwrap_or(Timestamp::MAX),
            header: preview.header.to_string(),
            cookie: preview.cookie.clone(),
        })
    }
}
