//! The other color besides: asked once more for what this one has not (skew), or sent a copy (mirror).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::fit::fit;
use super::send::{line_for, line_to, send};
use super::target::check_coding;
use super::upload::RequestBody;
use super::worker::Worker;
use crate::config::HostHeader;
use crate::routing::{Beside, BesideCounts, CopyPermit, Lane};
use crate::upstream::{Claim, Line};
use crate::wire::preamble::Ends;

/// Says to the app that nobody waits for this answer.
const X_CUTOVER_MIRROR: HeaderName = HeaderName::from_static("x-cutover-mirror");

/// A request that the other color may be asked for, too.
pub(super) struct Other {
    beside: Arc<Beside>,
    /// The request once more, while the path is one of skew's.
    again: Option<Box<Parts>>,
    copy: Option<Rc<Pair>>,
}

/// What a request is worth, before it is prepared: none at all in almost every app.
pub(super) struct Wish {
    beside: Arc<Beside>,
    skew: bool,
    mirror: Option<CopyPermit>,
}

impl Wish {
    /// `plain`: it has no body, wants no other protocol, and is a client's.
    pub(super) fn of(worker: &Worker, lane: &Lane, head: &Parts, plain: bool) -> Option<Self> {
        let beside = lane.settings.beside.as_ref().filter(|_| plain)?;
        if let Some(recent) = &beside.recent {
            let target = head.uri.path_and_query().map(|target| target.as_str());
            recent.passes(worker.ids.noise(), &head.method, target, &head.headers);
        }
        let skew = beside.covers(&head.method, head.uri.path());
        let mirror = beside.mirror.as_ref().and_then(|mirror| {
            let drawn = worker.ids.noise() % 100 < u64::from(mirror.percent);
            let copied = drawn && mirror.methods.contains(&head.method);
            copied.then(|| beside.counts.copy(mirror.max_in_flight)).flatten()
        });
        (skew || mirror.is_some()).then(|| Self {
            beside: Arc::clone(beside),
            skew,
            mirror,
        })
    }

    /// The request is as the app shall see it: remember it, and send the copy off.
    pub(super) fn with(
        self,
        worker: &Rc<Worker>,
        exchange: &Exchange,
        lane: &Lane,
        request: &Request<RequestBody>,
    ) -> Other {
        let copy = self.mirror.and_then(|permit| {
            let (other, claim) = other(worker, lane)?;
            let pair = Rc::new(Pair::new(&self.beside.counts));
            let mut head = copy_of(request, &other, &claim);
            head.headers
                .insert(X_CUTOVER_MIRROR, HeaderValue::from_static("1"));
            let max_body = self.beside.mirror.as_ref().map_or(0, |mirror| mirror.max_body);
            let tells = claim.endpoint().key.preamble.is_some();
            let copy = Copied {
                head,
                max_body,
                client: tells.then(|| exchange.client().addresses()).flatten(),
            };
            let copying = mirror(Rc::clone(worker), other, claim, copy, Rc::clone(&pair));
            tokio::task::spawn_local(async move {
                copying.await;
                drop(permit);
            });
            Some(pair)
        });
        Other {
            again: self.skew.then(|| Box::new(parts_of(request))),
            copy,
            beside: self.beside,
        }
    }
}

/// What the app has answered, and through what.
pub(super) type Answered = (Arc<Lane>, Line<RequestBody>, Response<Incoming>);

impl Other {
    /// The app has answered. What comes back is for the client: perhaps the other color's.
    pub(super) async fn answered(
        self,
        worker: &Rc<Worker>,
        exchange: &Exchange,
        first: Answered,
        after: Duration,
    ) -> Answered {
        let status = first.2.status();
        if let Some(pair) = self.copy {
            pair.says(Side::Active, (status.as_u16(), after));
        }
        let Some(head) = self.again.filter(|_| status == StatusCode::NOT_FOUND) else {
            return first;
        };
        let Some((lane, claim)) = other(worker, &first.0) else {
            return first;
        };
        let head = with_host(*head, &lane, &claim);
        let before = exchange.replace(&lane, claim);
        match ask_again(worker, exchange, lane, head).await {
            Some(second) => {
                self.beside.counts.rescued.fetch_add(1, Relaxed);
                second
            }
            None => {
                exchange.put_back(before);
                exchange.answered(status.as_u16(), after);
                first
            }
        }
    }
}

/// The other color's answer, if it is one to have.
async fn ask_again(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    lane: Arc<Lane>,
    head: Parts,
) -> Option<Answered> {
    let begun = Instant::now();
    let mut line = line_for(worker, exchange, &lane, begun, true, false).await.ok()?;
    let mut request = Some(Request::from_parts(head, RequestBody::none()));
    let (answer, _) = send(worker, exchange, &lane, &mut line, &mut request, None)
        .await
        .ok()?;
    let status = answer.status();
    if status.is_client_error() || status.is_server_error() || check_coding(answer.headers()).is_err() {
        return None;
    }
    exchange.answered(status.as_u16(), begun.elapsed());
    Some((lane, line, answer))
}

/// The other color's lane with an endpoint claimed, if it has one that is healthy.
fn other(worker: &Worker, lane: &Lane) -> Option<(Arc<Lane>, Claim)> {
    let table = worker.shared.published.load();
    let (_, service) = table.named(&lane.settings.app, &lane.settings.service)?;
    let other = service.pools[lane.color.other()].lanes.get(worker.index)?;
    let claim = other.pick(worker.ticket(), true, &[]).ok()?;
    Some((Arc::clone(other), claim))
}

fn parts_of(request: &Request<RequestBody>) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method.clone_from(request.method());
    parts.uri.clone_from(request.uri());
    parts.version = request.version();
    parts.headers.clone_from(request.headers());
    parts
}

fn copy_of(request: &Request<RequestBody>, lane: &Lane, claim: &Claim) -> Parts {
    with_host(parts_of(request), lane, claim)
}

/// The name is the endpoint's own where the file says so.
fn with_host(mut head: Parts, lane: &Lane, claim: &Claim) -> Parts {
    if lane.settings.headers.host == HostHeader::Upstream {
        head.headers.insert(HOST, claim.endpoint().authority.clone());
    }
    head
}

/// The two sides of a copied request; who answers last compares.
struct Pair {
    counts: Arc<BesideCounts>,
    active: Cell<Option<(u16, Duration)>>,
    standby: Cell<Option<(u16, Duration)>>,
}

#[derive(Clone, Copy)]
enum Side {
    Active,
    Standby,
}

impl Pair {
    fn new(counts: &Arc<BesideCounts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            active: Cell::new(None),
            standby: Cell::new(None),
        }
    }

    fn says(&self, side: Side, answer: (u16, Duration)) {
        match side {
            Side::Active => self.active.set(Some(answer)),
            Side::Standby => self.standby.set(Some(answer)),
        }
        if let (Some(active), Some(standby)) = (self.active.get(), self.standby.get()) {
            self.counts.compared(active, standby);
        }
    }
}

/// A request to be copied.
struct Copied {
    head: Parts,
    /// Of the answer, that is read.
    max_body: usize,
    /// Whose it is, for an endpoint that wants to be told.
    client: Option<Ends>,
}

/// Send a copy to the standby. Its answer is read, up to a bound, and thrown away.
async fn mirror(worker: Rc<Worker>, lane: Arc<Lane>, claim: Claim, copy: Copied, pair: Rc<Pair>) {
    let Copied {
        head,
        max_body,
        client,
    } = copy;
    let patience = lane.settings.timeouts.first_byte;
    let asking = async {
        let begun = Instant::now();
        let mut line = line_to(&worker, claim.endpoint(), &lane, || client, begun, true, false)
            .await
            .ok()?;
        line.carries(claim.gate());
        let begun = Instant::now();
        let mut request = Request::from_parts(head, RequestBody::none());
        fit(&mut request, &line).ok()?;
        let answer = line.send(request).await.ok()?;
        pair.says(Side::Standby, (answer.status().as_u16(), begun.elapsed()));
        let (mut body, mut read) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            read += frame.ok()?.data_ref().map_or(0, |data| data.len());
            if read > max_body {
                return Some(());
            }
        }
        worker.keep_line(line, Instant::now(), lane.settings.timeouts.upstream_idle);
        Some(())
    };
    let asked = tokio::time::timeout(patience, asking).await;
    if pair.standby.get().is_none() {
        pair.counts.failed.fetch_add(1, Relaxed);
        tracing::debug!(
            app = lane.settings.app,
            in_time = asked.is_ok(),
            "a copy got no answer"
        );
    }
}
