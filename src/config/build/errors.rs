//! `[errors]` at two levels, and `respond` of a listener.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Build;
use crate::config::diagnostics::quoted;
use crate::config::load::PemFile;
use crate::config::model::{Errors, Page, PageFor, PageKind, Problem, Respond};
use crate::config::raw::{self, At};
use crate::config::values;

/// What one `errors` table says.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorsPart {
    problem: Option<Problem>,
    pages: BTreeMap<PageFor, Page>,
    retry_after: Option<Duration>,
    maintenance: Option<Page>,
    maintenance_retry_after: Option<Duration>,
}

type Named = Vec<(PemFile, Range<usize>)>;

impl ErrorsPart {
    pub(super) fn read(raw: &raw::Errors, build: &mut Build<'_, '_, '_>, named: &mut Named) -> Self {
        let mut pages = BTreeMap::new();
        for (which, file) in raw.pages.iter().flatten() {
            let which = build.value("pages", &which.span(), page_for(which.get()));
            if let (Some(which), Some(page)) = (which, build.page("pages", file, named)) {
                pages.insert(which, page);
            }
        }
        let maintenance = &raw.maintenance;
        Self {
            problem: raw.problem.as_ref().map(|at| match at.get() {
                raw::Problem::Auto => Problem::Auto,
                raw::Problem::Always => Problem::Always,
                raw::Problem::Never => Problem::Never,
            }),
            pages,
            retry_after: build.duration("retry_after", raw.retry_after.as_ref(), Duration::from_secs(1)),
            maintenance: maintenance
                .page
                .as_ref()
                .and_then(|at| build.page("page", at, named)),
            maintenance_retry_after: build.duration(
                "retry_after",
                maintenance.retry_after.as_ref(),
                Duration::from_secs(1),
            ),
        }
    }

    /// This level's values where it has them, else the other's; pages one by one.
    pub(super) fn over(mut self, other: &Self) -> Self {
        for (which, page) in &other.pages {
            self.pages.entry(*which).or_insert_with(|| page.clone());
        }
        Self {
            problem: self.problem.or(other.problem),
            pages: self.pages,
            retry_after: self.retry_after.or(other.retry_after),
            maintenance: self.maintenance.or_else(|| other.maintenance.clone()),
            maintenance_retry_after: self.maintenance_retry_after.or(other.maintenance_retry_after),
        }
    }

    pub(super) fn over_defaults(self) -> Errors {
        Errors {
            problem: self.problem.unwrap_or_default(),
            pages: self.pages,
            retry_after: self.retry_after.unwrap_or(Duration::from_secs(1)),
            maintenance: self.maintenance,
            maintenance_retry_after: self.maintenance_retry_after.unwrap_or(Duration::from_secs(30)),
        }
    }
}

impl Build<'_, '_, '_> {
    /// A file that is to be read with the configuration.
    fn page(&mut self, key: &str, at: &At<String>, named: &mut Named) -> Option<Page> {
        let file = self.text(key, at, page_file)?;
        named.push((PemFile::Page(file.0.clone()), at.span()));
        Some(Page {
            file: file.0,
            kind: file.1,
            text: Arc::from(""),
        })
    }

    /// What a listener answers itself.
    pub(super) fn respond(&mut self, raw: Option<&Vec<raw::Respond>>) -> Vec<Respond> {
        let mut all: Vec<Respond> = Vec::new();
        let mut taken = BTreeSet::new();
        for raw in raw.into_iter().flatten() {
            let Some(at) = &raw.path else { continue };
            let Some(path) = self.text("path", at, values::path) else {
                continue;
            };
            if !taken.insert(path.clone()) {
                let message = format!("{} is answered twice", quoted(&path));
                self.findings.error(&at.span(), "duplicate_match", message, None);
            }
            let status = raw
                .status
                .as_ref()
                .map_or(200, |at| u16::try_from(*at.get()).unwrap_or(200));
            let body = raw.body.as_ref().map(|at| at.get().clone()).unwrap_or_default();
            // RFC 9110 §15.3.5, §15.3.6, §15.4.5: these end with their head.
            if let Some(at) = &raw.body
                && matches!(status, 204 | 205 | 304)
                && !body.is_empty()
            {
                let message = format!("an answer {status} has no body");
                let hint = "leave `body` out, or use 200".to_owned();
                self.findings.error(&at.span(), "conflicting_keys", message, hint);
            }
            let mut headers = raw
                .headers
                .as_ref()
                .map(|set| self.header_values(set))
                .unwrap_or_default();
            if !body.is_empty() && !headers.iter().any(|(name, _)| name == "content-type") {
                headers.push((
                    "content-type".to_owned(),
                    PageKind::Text.content_type().to_owned(),
                ));
            }
            all.push(Respond {
                path,
                status,
                body,
                headers,
            });
        }
        all
    }
}

fn page_for(text: &str) -> Result<PageFor, String> {
    const SYNTAX: &str = "pages are for statuses from \"400\" to \"599\", or \"4xx\" and \"5xx\"";
    match text {
        "4xx" => Ok(PageFor::Class(4)),
        "5xx" => Ok(PageFor::Class(5)),
        _ => text
            .parse()
            .ok()
            .filter(|status| (400..=599).contains(status))
            .map(PageFor::Status)
            .ok_or_else(|| SYNTAX.to_owned()),
    }
}

fn page_file(text: &str) -> Result<(PathBuf, PageKind), String> {
    let file = values::file_path(text)?;
    let kind = match file.extension().and_then(|end| end.to_str()) {
        Some("html" | "htm") => PageKind::Html,
        Some("txt") => PageKind::Text,
        Some("json") => PageKind::Json,
        _ => return Err("a page ends in `.html`, `.txt` or `.json`: that is its content type".to_owned()),
    };
    Ok((file, kind))
}
