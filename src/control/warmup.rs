//! The warm-up: before a color gets its first share of the traffic it is asked for pages, until it answers as fast as it will.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use super::ask::{Gated, Verdict};
use super::controller::Controller;
use super::gates::Question;
use crate::config::{App, HostPattern, Warmup};
use crate::smoke;
use crate::upstream::{Endpoint, ask};

/// Says to the app that nobody waits for this answer.
const X_CUTOVER_WARMUP: HeaderName = HeaderName::from_static("x-cutover-warmup");

/// For one request.
const ANSWER: Duration = Duration::from_secs(10);

/// Requests after which the p95 is looked at.
const ROUND: usize = 20;

/// It has settled when a round is not faster than this share of the one before.
const SETTLED: f64 = 0.9;

/// Where one request goes.
#[derive(Clone)]
struct Page {
    endpoint: Arc<Endpoint>,
    path: String,
    host: HeaderValue,
}

/// What became of it.
#[derive(Default)]
struct Warmed {
    asked: usize,
    failed: usize,
    first: Option<Duration>,
    last: Option<Duration>,
    why: String,
    settled: bool,
}

impl Controller {
    /// Warm a color up; `None` where the config wants none, or the color has traffic already. It goes to this color's
    /// endpoints alone. A color that fails half of it is not switched to.
    pub(super) async fn warm(self: &Rc<Self>, question: &Question) -> Option<Gated> {
        let of = self.config.borrow().apps.get(&question.app)?.clone();
        let warmup = of.traffic.warmup.clone()?;
        if question.state.share(question.to) > 0 {
            return None;
        }
        let (verdict, detail) = match self.pages(question, &of, &warmup) {
            pages if pages.is_empty() => {
                let detail = "nothing was asked for: no `paths`, and no client has asked for any yet";
                (Verdict::Pass, detail.to_owned())
            }
            pages => {
                let began = Instant::now();
                let mut warmed = Warmed::default();
                tokio::select! {
                    () = play(&pages, &warmup, &mut warmed) => {}
                    () = self.moved(&question.app, question.state.generation) => {}
                }
                said(&warmed, &warmup, began.elapsed())
            }
        };
        Some(self.told(question, "warmup", "warmup", verdict, detail).await)
    }

    /// Every path at every endpoint that serves it, in turn.
    fn pages(&self, question: &Question, of: &App, warmup: &Warmup) -> Vec<Page> {
        let table = self.published.load_full();
        let Some(route) = table.app(&question.app) else {
            return Vec::new();
        };
        let recent = || {
            let recent = route.beside.as_ref()?.recent.as_ref()?;
            Some(recent.paths())
        };
        let paths = match warmup.paths.as_slice() {
            [] => recent().unwrap_or_default(),
            paths => paths.to_vec(),
        };
        let named = of.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(name) => HeaderValue::try_from(name).ok(),
            HostPattern::Below(_) => None,
        });
        let mut pages = Vec::new();
        for path in paths {
            let Some((service, path)) = smoke::service(of, &path) else {
                continue;
            };
            let Some(service) = route.services.iter().find(|one| one.name == service.name) else {
                continue;
            };
            pages.extend(service.pools[question.to].members.iter().map(|member| Page {
                endpoint: Arc::clone(&member.endpoint),
                path: path.clone(),
                host: named.clone().unwrap_or_else(|| member.endpoint.authority.clone()),
            }));
        }
        pages
    }
}

/// Ask, round after round, until all is asked, the time is over, or the p95 has settled.
async fn play(pages: &[Page], warmup: &Warmup, warmed: &mut Warmed) {
    let rounds = async {
        let mut pages = pages.iter().cycle().cloned();
        let mut left = warmup.requests as usize;
        while left > 0 {
            let count = left.min(ROUND.max(warmup.parallel));
            left -= count;
            let mut round =
                stream::iter(pages.by_ref().take(count).map(one)).buffer_unordered(warmup.parallel);
            let mut times = Vec::with_capacity(count);
            while let Some(answer) = round.next().await {
                warmed.asked += 1;
                match answer {
                    Ok(took) => times.push(took),
                    Err(why) => {
                        warmed.failed += 1;
                        warmed.why = why;
                    }
                }
            }
            times.sort_unstable();
            let p95 = times
                .get((times.len() * 95).div_ceil(100).saturating_sub(1))
                .copied();
            let before = warmed.last;
            warmed.last = p95.or(before);
            warmed.first = warmed.first.or(p95);
            let (Some(before), Some(p95)) = (before, p95) else {
                continue;
            };
            if count == ROUND.max(warmup.parallel) && p95.as_secs_f64() >= SETTLED * before.as_secs_f64() {
                warmed.settled = true;
                return;
            }
        }
    };
    // What is done by then is done.
    let _ = timeout(warmup.max, rounds).await;
}

async fn one(page: Page) -> Result<Duration, String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(&page.path)
        .header(HOST, &page.host)
        .header(
            USER_AGENT,
            HeaderValue::from_static(concat!("cutover-warmup/", env!("CARGO_PKG_VERSION"))),
        )
        .header(X_CUTOVER_WARMUP, HeaderValue::from_static("1"))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let asked = format!("GET {} at {}", page.path, page.endpoint.label);
    let reply = ask(&page.endpoint, request, ANSWER).await;
    match reply {
        Ok(reply) if reply.status < 500 => Ok(reply.took),
        Ok(reply) => Err(format!("{asked}: {}", reply.status)),
        Err(why) => Err(format!("{asked}: {why}")),
    }
}

fn said(warmed: &Warmed, warmup: &Warmup, took: Duration) -> (Verdict, String) {
    let mut text = format!(
        "warmed {}/{} in {:.1} s",
        warmed.asked - warmed.failed,
        warmup.requests,
        took.as_secs_f64()
    );
    if let (Some(first), Some(last)) = (warmed.first, warmed.last) {
        text += &format!(", p95 {:.0} ms at first, {:.0} ms at last", ms(first), ms(last));
    }
    if warmed.settled {
        text += ", settled";
    }
    if warmed.failed > 0 {
        text += &format!("; {} failed, the last: {}", warmed.failed, warmed.why);
    }
    // In a time that was too short for one answer nothing is known, and nothing is held against it.
    let fails = warmed.failed * 2 > warmed.asked;
    (if fails { Verdict::Fail } else { Verdict::Pass }, text)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
