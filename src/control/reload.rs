//! Taking a new config file into use: whole or not at all.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::ask::{Ask, Intent, Refusal, Wanted};
use super::controller::{Controller, Insistence, Slot};
use super::handle::Reloaded;
use super::publish::file_endpoints;
use super::view::EventKind;
use crate::config::{self, Changed, Config};
use crate::rollout::{Actor, AppState, ByColor, Change, Color, Command};

/// The longest that a reload waits for a switch under way.
const OPERATION_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

impl Controller {
    /// Read the file and take it into use.
    pub(super) async fn reload(self: &Rc<Self>, by: Actor) -> Result<Reloaded, Refusal> {
        let Some(path) = self.file.clone() else {
            return Err(Refusal::Invalid(
                "cutover runs from flags: there is no config file to reload".to_owned(),
            ));
        };
        let _turn = self.reloading.lock().await;
        // Read on a thread of its own: a hanging network mount must not stop the control plane.
        let running = Arc::clone(&self.config.borrow());
        let read = tokio::task::spawn_blocking(move || {
            let loaded = config::load(&path, &|name| std::env::var(name).ok())?;
            loaded.with_files(Some(&running))
        });
        match read.await {
            Ok(Ok(loaded)) => self.take_into_use(loaded, by).await,
            Ok(Err(diagnostics)) => Err(self.refuse_file(diagnostics.to_string())),
            Err(_) => Err(self.refuse_file("reading the file failed".to_owned())),
        }
    }

    /// The watcher saw a change.
    pub(super) async fn file_changed(self: &Rc<Self>, change: Changed) {
        match change {
            Changed::Content(hash) if Some(hash) == self.file_hash.get() => {
                self.config_view.borrow_mut().last_error = None;
            }
            Changed::Content(_) => {
                let by = super::controller::itself("config file", crate::rollout::Trigger::File);
                // Told in the log, as event, metric and in status by the reload itself.
                let _ = self.reload(by).await;
            }
            Changed::Unreadable(why) => drop(self.refuse_file(why)),
        }
    }

    /// Say everywhere that the file is not taken; nothing else happens.
    fn refuse_file(&self, why: String) -> Refusal {
        self.metrics.reload_failed();
        self.config_view.borrow_mut().last_error = Some(why.clone());
        let first = why.lines().next().unwrap_or_default();
        self.tell(
            EventKind::ReloadFailed,
            None,
            None,
            format!("config refused, the old one stays: {first}"),
        );
        tracing::error!("config refused, the running configuration stays\n{why}");
        Refusal::Config(why)
    }

    async fn take_into_use(self: &Rc<Self>, loaded: config::Loaded, by: Actor) -> Result<Reloaded, Refusal> {
        let old = Arc::clone(&self.config.borrow());
        let mut warnings: Vec<String> = loaded.warnings.items.iter().map(ToString::to_string).collect();
        warnings.extend((self.on_reload)(&old));
        // The file may be the same and a page that it names another one.
        let same_pages = loaded.config.errors == old.errors && loaded.config.apps == old.apps;
        if Some(loaded.hash) == self.file_hash.get() && same_pages {
            warnings.extend(self.refresh_certificates(&old).await);
            let mut view = self.config_view.borrow_mut();
            view.last_error = None;
            let needs_restart = view.needs_restart.clone();
            self.metrics.reloaded(Timestamp::now());
            return Ok(Reloaded {
                changed: false,
                diff: Vec::new(),
                needs_restart,
                warnings,
            });
        }
        let diff = config::diff(&old, &loaded.config);
        let needs_restart = config::needs_restart(&old, &loaded.config);
        let new = Arc::new(keep_what_needs_a_restart(&old, loaded.config.clone()));
        let stored = match self.refuse_degraded(&old, &new) {
            Ok(()) => self.commit_endpoints(&old, &new, &by).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = stored {
            self.refuse_file(refusal.to_string());
            return Err(refusal);
        }
        let known = self.known_to_the_store(&new).await;
        let fresh = self.install(&old, &new, &known);
        self.file_hash.set(Some(loaded.hash));
        *self.file_text.borrow_mut() = loaded.text;
        {
            let mut view = self.config_view.borrow_mut();
            view.hash = loaded.hash.to_string();
            view.loaded_at = Some(Timestamp::now());
            view.last_error = None;
            view.needs_restart.clone_from(&needs_restart);
        }
        warnings.extend(self.refresh_certificates(&new).await);
        self.metrics.reloaded(Timestamp::now());
        let message = format!("config taken into use, {} differences", diff.len());
        tracing::info!("{message}");
        self.tell(EventKind::Reloaded, None, None, message);
        for app in known.keys() {
            self.take_up(app).await;
        }
        for app in fresh {
            let controller = Rc::clone(self);
            tokio::task::spawn_local(async move { controller.decide_first(&app).await });
        }
        self.follow_file_colors(&old, &new, &by);
        Ok(Reloaded {
            changed: true,
            diff,
            needs_restart,
            warnings,
        })
    }

    /// Apps whose endpoints changed get a generation of their own, durable before it is visible.
    async fn commit_endpoints(
        self: &Rc<Self>,
        old: &Config,
        new: &Config,
        by: &Actor,
    ) -> Result<(), Refusal> {
        for (name, of) in &new.apps {
            let Some(before) = old.apps.get(name) else {
                continue;
            };
            let file = ByColor::from_fn(|color| file_endpoints(of, color));
            let changed = ByColor::from_fn(|color| file[color] != file_endpoints(before, color));
            if !changed.blue && !changed.green {
                continue;
            }
            let command = Command {
                app: name.clone(),
                change: Change::Reload { file, changed },
                expect_generation: None,
                by: by.clone(),
                reason: String::new(),
                idempotency_key: None,
            };
            self.quiet(name).await;
            let insist = Insistence {
                unpublished: true,
                ..Insistence::default()
            };
            self.change(command, insist).await?;
        }
        Ok(())
    }

    /// All or nothing: an app whose stored state is in doubt could not take its part.
    fn refuse_degraded(&self, old: &Config, new: &Config) -> Result<(), Refusal> {
        let moves = |name: &String, of: &config::App| {
            old.apps.get(name).is_some_and(|before| {
                Color::ALL
                    .iter()
                    .any(|color| file_endpoints(of, *color) != file_endpoints(before, *color))
            })
        };
        let apps = self.apps.borrow();
        let affected = new.apps.iter().filter(|(name, of)| moves(name, of));
        let degraded = affected
            .filter_map(|(name, _)| apps.get(name)?.degraded.clone())
            .next();
        degraded.map_or(Ok(()), |why| Err(Refusal::Degraded(why)))
    }

    /// Wait until no gate or proof of the app runs: a reload in between would move the generation under it.
    async fn quiet(&self, app: &str) {
        let until = tokio::time::Instant::now() + OPERATION_MAX;
        while self
            .with_slot(app, |slot| slot.operation.is_some())
            .unwrap_or(false)
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The stored states of apps that come back: one that left the file for a while is no new one.
    async fn known_to_the_store(&self, new: &Config) -> BTreeMap<String, AppState> {
        let mut known = BTreeMap::new();
        for name in new.apps.keys() {
            let is_here = self.apps.borrow().contains_key(name);
            if !is_here && let Ok(Some(state)) = self.store.newest(name).await {
                known.insert(name.clone(), state);
            }
        }
        known
    }

    /// From here on nothing can fail. Returns the apps that are new.
    fn install(&self, old: &Config, new: &Arc<Config>, known: &BTreeMap<String, AppState>) -> Vec<String> {
        *self.config.borrow_mut() = Arc::clone(new);
        let mut fresh = Vec::new();
        {
            let mut apps = self.apps.borrow_mut();
            apps.retain(|name, _| new.apps.contains_key(name));
            for (name, of) in &new.apps {
                if apps.contains_key(name) {
                    continue;
                }
                if let Some(state) = known.get(name) {
                    apps.insert(name.clone(), Slot::new(state.clone()));
                } else {
                    apps.insert(name.clone(), self.undecided(of));
                    fresh.push(name.clone());
                }
            }
        }
        debug_assert!(
            fresh.iter().all(|name| !old.apps.contains_key(name)),
            "an old app has a place"
        );
        self.publish_all();
        fresh
    }

    /// `active = …` in the file that changed is one switch, with all gates.
    fn follow_file_colors(self: &Rc<Self>, old: &Config, new: &Config, by: &Actor) {
        let mut wanted = BTreeMap::new();
        for (name, of) in &new.apps {
            let before: Option<Option<Color>> = old.apps.get(name).map(|before| before.active);
            if let (Some(color), Some(before)) = (of.active, before)
                && before != Some(color)
            {
                wanted.insert(name.clone(), color);
            }
        }
        for (app, color) in wanted {
            let ask = Ask {
                app: Some(app.clone()),
                intent: Intent::Switch {
                    to: Wanted::Color(color),
                    force: false,
                    release: false,
                },
                expect_generation: None,
                by: by.clone(),
                reason: format!("active = \"{color}\" in the config file"),
                idempotency_key: None,
                lease: None,
                dry_run: false,
            };
            let controller = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Err(error) = controller.ask(ask).await {
                    tracing::error!(app, %error, "the config file's switch was refused");
                }
            });
        }
    }
}

/// Settings that were bound or opened at start stay as they are until the next one.
fn keep_what_needs_a_restart(old: &Config, new: Config) -> Config {
    Config {
        server: config::Server {
            trusted_proxies: new.server.trusted_proxies.clone(),
            trusts_unix: new.server.trusts_unix,
            compat_file: new.server.compat_file.clone(),
            shutdown_grace: new.server.shutdown_grace,
            ..old.server.clone()
        },
        admin: old.admin.clone(),
        listeners: with_new_certificates(&old.listeners, &new.listeners),
        log: old.log.clone(),
        ..new
    }
}

/// The listeners as bound, with the certificates that the file names now.
fn with_new_certificates(old: &[config::Listener], new: &[config::Listener]) -> Vec<config::Listener> {
    let mut kept = old.to_vec();
    for (listener, new) in kept.iter_mut().zip(config::same_listeners(old, new)) {
        if let (Some(tls), Some(new)) = (&mut listener.tls, new.and_then(|new| new.tls.as_ref())) {
            tls.settings.certificates.clone_from(&new.settings.certificates);
        }
    }
    kept
}

/// The text of a config with the values hidden that look like secrets. (`${VAR}` is shown as written.)
pub(super) fn masked(text: &str) -> String {
    const SECRET: &str = r#"(?im)((?:authorization|cookie|secret|password|passwd|token|api[-_]?key)"?\s*=\s*)("[^"\n]*"|'[^'\n]*')"#;
    // The pattern is a constant; if it ever failed to compile, nothing is shown.
    regex::Regex::new(SECRET).map_or_else(
        |_| String::new(),
        |regex| regex.replace_all(text, "$1\"***\"").into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let text = "token_file = \"/etc/t\"\nrequest.set = { \"Authorization\" = \"Basic abc\", \"x-env\" = \"prod\" }\n";
        let shown =
            "token_file = \"/etc/t\"\nrequest.set = { \"Authorization\" = \"***\", \"x-env\" = \"prod\" }\n";
        assert_eq!(masked(text), shown);
    }
}
