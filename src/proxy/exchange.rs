//! One request's account: made at its head, closed when its last byte is through or it is given up.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, HeaderMap, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Uri, Version};

use super::client::Client;
use super::error::{ProxyError, Side};
use super::grpc::Call;
use super::headers::Peer;
use super::location::Names;
use super::origin::Origin;
use super::seen::Seen;
use super::serving::Serving;
use super::trace::{TRACEPARENT, trace_id};
use super::worker::Worker;
use crate::config::{Errors, Problem, Trace};
use crate::metrics::{PoolCells, Record};
use crate::routing::{Lane, Newcomer, Settings};
use crate::upstream::Claim;

/// Status in the log of a request whose client went away first (nginx's number).
const CLIENT_GONE: u16 = 499;

/// A request from its head to its last byte. Dropping it is the end of the request: it releases the claim, counts
/// and logs. Both bodies hold it, so it ends with the later one.
pub(super) struct Exchange {
    worker: Rc<Worker>,
    /// Set once a service is known; until then the worker's own cells count.
    cells: RefCell<Option<Arc<PoolCells>>>,
    lane: RefCell<Option<Arc<Lane>>>,
    claim: RefCell<Option<Claim>>,
    newcomer: Cell<Option<Newcomer>>,
    method: Method,
    /// It is a gRPC call.
    call: Option<Call>,
    /// What its head had when it came.
    seen: Seen,
    start: Instant,
    /// When the last byte of the answer was handed on.
    end: Cell<Option<Instant>>,
    status: Cell<u16>,
    upstream: Cell<Option<Duration>>,
    error: Cell<Option<ProxyError>>,
    cut: Cell<Option<&'static str>>,
    retries: Cell<u32>,
    stream: Cell<bool>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// What a trusted proxy in front says of the client.
    origin: OnceCell<Box<Origin>>,
    /// The id that it goes by; kept where it is wanted again.
    id: RefCell<Option<HeaderValue>>,
    /// It has got one.
    has_id: Cell<bool>,
    /// The app's name for itself and the client's, where they differ and answers are to be put right.
    names: OnceCell<Box<Names>>,
    /// The service, where no color was chosen.
    settings: RefCell<Option<Arc<Settings>>>,
    /// Not to be logged.
    silent: Cell<bool>,
    log: Option<Box<Logged>>,
    /// The client's connection is busy until both bodies are through.
    serving: Serving,
}

/// What only the access log wants; not gathered when it is off.
struct Logged {
    peer: Rc<Peer>,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    trace: RefCell<Option<HeaderValue>>,
}

impl Exchange {
    /// The account of a request whose head has just come.
    pub(super) fn begin(worker: &Rc<Worker>, serving: Serving, head: &http::request::Parts) -> Rc<Self> {
        let peer = &serving.client().peer;
        let log = worker.logs().then(|| Box::new(Logged::of(peer, head)));
        Rc::new(Self {
            worker: Rc::clone(worker),
            cells: RefCell::new(None),
            lane: RefCell::new(None),
            claim: RefCell::new(None),
            newcomer: Cell::new(None),
            method: head.method.clone(),
            call: Call::of(&head.method, &head.headers),
            seen: Seen::at(&head.headers),
            start: Instant::now(),
            end: Cell::new(None),
            status: Cell::new(0),
            upstream: Cell::new(None),
            error: Cell::new(None),
            cut: Cell::new(None),
            retries: Cell::new(0),
            stream: Cell::new(false),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            origin: OnceCell::new(),
            id: RefCell::new(None),
            has_id: Cell::new(false),
            names: OnceCell::new(),
            settings: RefCell::new(None),
            silent: Cell::new(false),
            log,
            serving,
        })
    }

    /// A lane was chosen and an endpoint claimed; on a second try this replaces the first.
    pub(super) fn claimed(&self, lane: &Arc<Lane>, claim: Claim) {
        self.serving.goes_through(claim.gate());
        *self.claim.borrow_mut() = Some(claim);
        self.counted_by(&lane.cells);
        *self.lane.borrow_mut() = Some(Arc::clone(lane));
    }

    /// The other color is asked, too: its lane and claim for those of the first, which come back.
    pub(super) fn replace(&self, lane: &Arc<Lane>, claim: Claim) -> Option<(Arc<Lane>, Claim)> {
        let before = self.lane.borrow_mut().take().zip(self.claim.borrow_mut().take());
        self.claimed(lane, claim);
        before
    }

    /// The first color's answer stands after all.
    pub(super) fn put_back(&self, before: Option<(Arc<Lane>, Claim)>) {
        if let Some((lane, claim)) = before {
            self.claimed(&lane, claim);
        }
    }

    /// The client is to be told who it is, with the answer.
    pub(super) fn introduce(&self, newcomer: Option<Newcomer>) {
        self.newcomer.set(newcomer);
    }

    /// Who the client is from now on, if it has to be told.
    pub(super) fn newcomer(&self) -> Option<Newcomer> {
        self.newcomer.get()
    }

    /// The service is known, the color is not: its answers are counted apart.
    pub(super) fn undecided(&self, cells: &Arc<PoolCells>, settings: &Arc<Settings>) {
        self.counted_by(cells);
        *self.settings.borrow_mut() = Some(Arc::clone(settings));
    }

    fn counted_by(&self, cells: &Arc<PoolCells>) {
        let mut current = self.cells.borrow_mut();
        if let Some(before) = current.as_ref() {
            if Arc::ptr_eq(before, cells) {
                return;
            }
            before.in_flight.add(-1);
        }
        cells.in_flight.add(1);
        *current = Some(Arc::clone(cells));
    }

    /// The endpoint claimed and the gate it was claimed through.
    pub(super) fn with_claim<T>(&self, f: impl FnOnce(&Claim) -> T) -> Option<T> {
        self.claim.borrow().as_ref().map(f)
    }

    /// Give the claim up before another is taken: nothing was sent.
    pub(super) fn unclaim(&self) {
        self.claim.borrow_mut().take();
    }

    /// The gRPC call that it is, if it is one.
    pub(super) fn call(&self) -> Option<Call> {
        self.call
    }

    /// What its head had when it came.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// The answer is through: the clock is read once for all that want to know.
    pub(super) fn ends(&self) -> Instant {
        let now = Instant::now();
        self.end.set(Some(now));
        now
    }

    /// When its head was there.
    pub(super) fn begun(&self) -> Instant {
        self.start
    }

    /// The request goes out once more.
    pub(super) fn retried(&self) {
        self.retries.set(self.retries.get() + 1);
        if let Some(cells) = self.cells.borrow().as_ref() {
            cells.retries.add(1);
        }
    }

    /// The app's head is there.
    pub(super) fn answered(&self, status: u16, since_sent: Duration) {
        self.status.set(status);
        self.upstream.set(Some(since_sent));
        if let Some(cells) = self.cells.borrow().as_ref() {
            cells.upstream.record(since_sent);
        }
    }

    /// The proxy answers itself, and nothing is wrong.
    pub(super) fn redirected(&self, status: u16) {
        self.status.set(status);
    }

    /// The proxy answers itself.
    pub(super) fn refused(&self, error: ProxyError) {
        self.error.set(Some(error));
        self.status.set(if error == ProxyError::ClientGone {
            CLIENT_GONE
        } else {
            error.status().as_u16()
        });
    }

    /// It has become a stream: how long it lasts says nothing of the app's speed.
    pub(super) fn streams(&self) {
        self.stream.set(true);
    }

    /// The answer was cut short, and why.
    pub(super) fn cut(&self, why: &'static str) {
        self.cut.set(Some(self.serving.answer_cut(why)));
    }

    /// The request as the client's connection knows it.
    pub(super) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// The client's connection.
    pub(super) fn client(&self) -> &Client {
        self.serving.client()
    }

    /// Who asks.
    pub(super) fn peer(&self) -> &Peer {
        &self.serving.client().peer
    }

    /// A trusted proxy in front has said who asked.
    pub(super) fn says(&self, origin: Box<Origin>) {
        // Asked once a request, so it is empty.
        let _ = self.origin.set(origin);
    }

    /// What a trusted proxy in front says of the request; `None` for a client of our own.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.origin.get().map(|origin| &**origin)
    }

    /// The client's address, as far back as it is believed; `None` when only a Unix socket is known.
    pub(super) fn client_ip(&self) -> Option<IpAddr> {
        self.origin().map_or(self.peer().ip, |origin| origin.client)
    }

    /// The request's body is through.
    pub(super) fn uploaded(&self) {
        // Behind the end of the answer it is this that ends the exchange.
        self.end.set(None);
        self.serving.uploaded();
    }

    /// Body bytes that came from the client.
    pub(super) fn received(&self, bytes: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
    }

    /// Body bytes that went to the client.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// The proxy answers itself, and nobody wants to read of it.
    pub(super) fn answered_silently(&self, status: u16) {
        self.status.set(status);
        self.silent.set(true);
    }

    /// The app gets this head: the id and the trace that it goes by are in it.
    pub(super) fn named(&self, headers: &HeaderMap, settings: &Settings) {
        let Settings {
            headers: rules,
            errors,
            ..
        } = settings;
        self.has_id.set(true);
        // Kept only where somebody asks for it: the clone would be the one thing here that allocates.
        let shown = !errors.pages.is_empty() || errors.problem == Problem::Always;
        if self.log.is_some() || rules.expose_request_id || shown {
            let id = rules.request_id.as_ref().and_then(|name| headers.get(name));
            *self.id.borrow_mut() = id.cloned();
        }
        if let Some(log) = self.log.as_ref().filter(|_| rules.trace != Trace::Pass) {
            *log.trace.borrow_mut() = headers.get(TRACEPARENT).cloned();
        }
    }

    /// The id it goes by, if that is known here; one that has not got that far gets one now.
    pub(super) fn id(&self) -> Option<HeaderValue> {
        if !self.has_id.replace(true) {
            *self.id.borrow_mut() = Some(self.worker.ids.next());
        }
        self.id.borrow().clone()
    }

    /// Answers are to be put right.
    pub(super) fn goes_by(&self, names: Option<Box<Names>>) {
        if let Some(names) = names {
            // A request goes to one app.
            let _ = self.names.set(names);
        }
    }

    /// An app's answer as the client can use it: in the client's names, with the id of the request if it shall see it.
    pub(super) fn in_the_clients_words(&self, headers: &mut HeaderMap) {
        if let Some(names) = self.names.get() {
            names.rewrite(headers);
        }
        self.expose_id(headers);
    }

    /// Tell the client by which id its request goes, if it shall know.
    pub(super) fn expose_id(&self, headers: &mut HeaderMap) {
        let name = self.with_settings(|settings| {
            let rules = &settings.headers;
            rules.request_id.clone().filter(|_| rules.expose_request_id)
        });
        if let Some(name) = name.flatten()
            && let Some(id) = self.id()
        {
            headers.insert(name, id);
        }
    }

    /// What the service is like that it is for, if it is known. Lent, not given: all workers count on one `Arc`.
    fn with_settings<T>(&self, f: impl FnOnce(&Settings) -> T) -> Option<T> {
        match (self.lane.borrow().as_ref(), self.settings.borrow().as_ref()) {
            (Some(lane), _) => Some(f(&lane.settings)),
            (None, Some(settings)) => Some(f(settings)),
            (None, None) => None,
        }
    }

    /// How it is told that it is not served.
    pub(super) fn errors(&self) -> Arc<Errors> {
        let of_app = self.with_settings(|settings| Arc::clone(&settings.errors));
        of_app.unwrap_or_else(|| Arc::clone(&self.worker.shared.published.load().edge.errors))
    }

    fn failed_for_the_client(&self) -> bool {
        self.cut
            .get()
            .is_some_and(|why| why != CUT_BY_CLIENT && why != ENDED_BY_POLICY)
            || self
                .error
                .get()
                .is_some_and(|error| error.side() != Side::Downstream)
    }
}

/// The reason noted when the client itself ended an answer.
pub(super) const CUT_BY_CLIENT: &str = "client went away in mid-answer";

/// The reason noted when a stream was ended well by its app's stream policy.
pub(super) const ENDED_BY_POLICY: &str = "stream ended by policy";

impl Logged {
    fn of(peer: &Rc<Peer>, head: &http::request::Parts) -> Self {
        let header = |name| head.headers.get(name).cloned();
        Self {
            peer: Rc::clone(peer),
            uri: head.uri.clone(),
            version: head.version,
            host: head.headers.get(HOST).cloned(),
            user_agent: header(USER_AGENT),
            referer: header(REFERER),
            trace: RefCell::new(head.headers.get(TRACEPARENT).cloned()),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Over HTTP/2 the last frame is handed on in pieces, as the client takes them.
        let end = self.end.get().filter(|_| self.serving.stream().is_none());
        let end = end.unwrap_or_else(Instant::now);
        let duration = end - self.start;
        self.serving.ends_at(end);
        if self.status.get() == 0 {
            self.refused(ProxyError::ClientGone);
            self.serving.taken_back();
        }
        let status = self.status.get();
        match self.cells.borrow().as_deref() {
            Some(cells) => {
                cells.in_flight.add(-1);
                self.blame(cells, status, duration);
                cells.finished(&self.method, status, duration);
            }
            None => self
                .worker
                .cells
                .unrouted
                .finished(&self.method, status, duration),
        }
        if let Some(log) = self.log.as_ref().filter(|_| !self.silent.get()) {
            self.write(log, status, duration);
        }
        // The claim goes last: whoever sees the drain end also finds the request counted.
        self.claim.borrow_mut().take();
    }
}

impl Exchange {
    /// Whose fault it was, for the windows of gates and guard.
    fn blame(&self, cells: &PoolCells, status: u16, duration: Duration) {
        let cancelled = status == CLIENT_GONE || self.cut.get() == Some(CUT_BY_CLIENT);
        if cancelled || self.stream.get() {
            cells.set_aside(duration, cancelled);
        }
        if self.failed_for_the_client() {
            cells.failed.add(1);
        } else if status >= 500 {
            cells.upstream_errors.add(1);
        } else if status >= 400 && !cancelled {
            cells.client_errors.add(1);
        }
    }

    fn write(&self, log: &Logged, status: u16, duration: Duration) {
        let lane = self.lane.borrow();
        let claim = self.claim.borrow();
        let undecided = self.settings.borrow();
        let settings = lane.as_ref().map(|lane| &lane.settings).or(undecided.as_ref());
        let endpoint = claim.as_ref().map(|claim| claim.endpoint().label.as_str());
        self.worker.log(&Record {
            time: SystemTime::now(),
            client: self.client_ip(),
            scheme: log.peer.scheme,
            method: self.method.as_str(),
            host: bytes(log.host.as_ref()),
            path: log.uri.path().as_bytes(),
            version: log.version,
            status,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            duration,
            upstream_duration: self.upstream.get(),
            app: settings.map(|settings| settings.app.as_str()),
            service: settings.map(|settings| settings.service.as_str()),
            color: lane.as_ref().map(|lane| lane.color),
            endpoint,
            request_id: bytes(self.id.borrow().as_ref()),
            trace_id: bytes(log.trace.borrow().as_ref()).and_then(trace_id),
            user_agent: bytes(log.user_agent.as_ref()),
            referer: bytes(log.referer.as_ref()),
            retries: self.retries.get(),
            error: self.cut.get().or(self.error.get().map(ProxyError::as_str)),
        });
    }
}

fn bytes(value: Option<&HeaderValue>) -> Option<&[u8]> {
    value.map(HeaderValue::as_bytes)
}
