//! The table itself: immutable, whole, and all that a request needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Affinity, Beside, HoldQueue, Matcher, Place, PreviewKey, RetryBudget};
use crate::config::{
    Balance, BalancePolicy, Drain, Errors, Headers, HostPattern, Limits, Network, PathMatch, Preview, Retry,
    Rule, Streams, Timeouts,
};
use crate::metrics::{PoolCells, PoolMetrics};
use crate::rollout::{ByColor, Color, Weight};
use crate::upstream::breaker::now;
use crate::upstream::{Claim, Endpoint, Gate, Health, Queue};

/// One published state of all routing.
#[derive(Debug)]
pub struct RoutingTable {
    /// Counts publishes; what `wait-drained` compares with what each worker has applied.
    pub version: u64,
    /// All apps, by name. A switch replaces one of these and keeps the rest.
    pub apps: Vec<Arc<AppRoute>>,
    /// Host and path to a place in `apps`.
    pub matcher: Arc<Matcher>,
    /// What applies before an app is known.
    pub edge: Arc<Edge>,
}

/// What applies to a client before its request has reached an app.
#[derive(Debug)]
pub struct Edge {
    /// What a client may cost.
    pub limits: Limits,
    /// Networks whose forwarding headers and PROXY protocol are believed.
    pub trusted: Vec<Network>,
    /// What preview tokens are checked with, if some app has a preview.
    pub preview: Option<Arc<PreviewKey>>,
    /// Whoever connects to a Unix socket is believed too.
    pub trusts_unix: bool,
    /// Our own answers to requests that reach no app.
    pub errors: Arc<Errors>,
}

impl Edge {
    /// Whether what a peer says of other clients is believed; `None` is the peer of a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.trusts_unix, |ip| {
            self.trusted.iter().any(|network| network.contains(ip))
        })
    }
}

impl RoutingTable {
    /// Step 1 of a request: the app and service for a host (lower case, no port) and path (no query).
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<(&Arc<AppRoute>, &ServiceRoute)> {
        self.at(self.matcher.find(host, path)?)
    }

    /// A service by name.
    #[must_use]
    pub fn named(&self, app: &str, service: &str) -> Option<(&Arc<AppRoute>, &ServiceRoute)> {
        let app = self.app(app)?;
        Some((app, app.services.iter().find(|at| at.name == service)?))
    }

    fn at(&self, place: Place) -> Option<(&Arc<AppRoute>, &ServiceRoute)> {
        let app = self.apps.get(place.app)?;
        Some((app, app.services.get(place.service)?))
    }

    /// An app by name.
    #[must_use]
    pub fn app(&self, name: &str) -> Option<&Arc<AppRoute>> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// Every endpoint of every pool.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let pools = self
            .apps
            .iter()
            .flat_map(|app| &app.services)
            .flat_map(|service| service.pools.iter());
        pools.flat_map(|(_, pool)| pool.members.iter().map(|member| &member.endpoint))
    }
}

/// One app's part of the table.
#[derive(Debug)]
pub struct AppRoute {
    /// Its name.
    pub name: String,
    /// Its hosts; empty = any.
    pub hosts: Vec<HostPattern>,
    /// The generation this was built from.
    pub generation: u64,
    /// The color that takes the traffic.
    pub active: Color,
    /// The standby's share while it is a candidate.
    pub weight: Weight,
    /// Who its clients are while it has a candidate.
    pub affinity: Affinity,
    /// Who may mean a color on purpose.
    pub preview: Option<Arc<Preview>>,
    /// Conditions that send requests to a color.
    pub rules: Arc<[Rule]>,
    /// The revision of each color.
    pub revisions: ByColor<Option<String>>,
    /// Requests wait here instead of being served.
    pub hold: Option<Arc<HoldQueue>>,
    /// Requests are answered 503 with this message.
    pub maintenance: Option<String>,
    /// Its stored state is in doubt.
    pub degraded: bool,
    /// How long running requests of a draining color may go on.
    pub drain: Drain,
    /// Its services, by name.
    pub services: Vec<ServiceRoute>,
    /// Each worker's point in the sequence that splits traffic; carried over.
    pub phases: Arc<[PaddedPoint]>,
    /// Requests that went to the active color because the candidate had nothing healthy; carried over.
    pub spilled: Arc<AtomicU64>,
    /// Conditions that had no answer for a request; carried over.
    pub rule_errors: Arc<AtomicU64>,
    /// What is asked of the other color besides.
    pub beside: Option<Arc<Beside>>,
}

impl AppRoute {
    /// A color's share of the traffic in percent, as wanted.
    #[must_use]
    pub fn share(&self, color: Color) -> u8 {
        let candidate = self.weight.percent();
        if color == self.active {
            100 - candidate
        } else {
            candidate
        }
    }

    /// Whether a stream that came through this gate to this endpoint may go on: its gate is still there, or only
    /// closed for a hold while the endpoint keeps its place and its color its share.
    #[must_use]
    pub fn keeps_stream(&self, color: Color, endpoint: u64, gate: u64) -> bool {
        let members = self
            .services
            .iter()
            .flat_map(|service| &service.pools[color].members);
        let is_gate = |at: &Option<Arc<Gate>>| at.as_ref().is_some_and(|at| at.id == gate);
        let keeps = |member: &Arc<Member>| {
            let in_service = member.endpoint.id == endpoint && member.explicit.is_some();
            is_gate(&member.open) || is_gate(&member.explicit) || (in_service && self.share(color) > 0)
        };
        members.into_iter().any(keeps)
    }
}

/// A worker's own word on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PaddedPoint(AtomicU64);

impl PaddedPoint {
    /// A point to begin with.
    #[must_use]
    pub const fn new(point: u64) -> Self {
        Self(AtomicU64::new(point))
    }

    /// The point.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Move it; only the owning worker may.
    pub fn set(&self, point: u64) {
        self.0.store(point, Relaxed);
    }
}

/// One service's part of the table.
#[derive(Debug)]
pub struct ServiceRoute {
    /// Its name.
    pub name: String,
    /// Which requests are its.
    pub matches: PathMatch,
    /// The health path, which is never held; `None` when health is not HTTP.
    pub health_path: Option<String>,
    /// The endpoints of each color.
    pub pools: ByColor<Pool>,
    /// What does not differ between colors.
    pub settings: Arc<Settings>,
    /// Cells for answers made before a color was chosen.
    pub undecided: Arc<PoolMetrics>,
}

/// What the request path needs to know of a service besides its endpoints.
#[derive(Debug)]
pub struct Settings {
    /// The app's name.
    pub app: String,
    /// The service's name.
    pub service: String,
    /// Upstream deadlines.
    pub timeouts: Timeouts,
    /// What a client may cost.
    pub limits: Limits,
    /// Header rules.
    pub headers: Headers,
    /// Our own answers in place of the app's.
    pub errors: Arc<Errors>,
    /// The prefix to take off, if `strip_prefix` is on.
    pub strip: Option<String>,
    /// Which endpoint a request goes to, and when one is left alone.
    pub balance: Balance,
    /// How often a request may be tried.
    pub retry: Retry,
    /// Where requests wait that are above `balance.max_in_flight`; carried over. `None` = nothing is bounded.
    pub queues: ByColor<Option<Arc<Queue>>>,
    /// Each worker's count for it; carried over.
    pub budgets: Arc<[RetryBudget]>,
    /// What is taken out of requests because it is for us: a preview's header and cookie.
    pub preview: Option<Arc<Preview>>,
    /// What is asked of the other color besides.
    pub beside: Option<Arc<Beside>>,
    /// How the streams of a color end that is left. Of the time when a stream began; the newest table's word
    /// stands over it, as long as the app exists.
    pub streams: Streams,
}

impl Settings {
    /// A worker's retry budget.
    #[must_use]
    pub fn budget(&self, worker: usize) -> &RetryBudget {
        &self.budgets[worker]
    }
}

/// The endpoints of one service in one color.
#[derive(Debug)]
pub struct Pool {
    /// The endpoints.
    pub members: Vec<Arc<Member>>,
    /// A worker's view of this pool, by worker.
    pub lanes: Box<[Arc<Lane>]>,
    /// Whether the last failing endpoint keeps the traffic (decided for the active color only).
    pub serve_when_failing: bool,
}

/// One endpoint's place in a pool. An open gate is permission to send; `None` is none.
#[derive(Debug)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// For ordinary traffic: open while its color has a share and the app is not held.
    pub open: Option<Arc<Gate>>,
    /// For explicit traffic (verify, the health path while held): open unless the color is drained.
    pub explicit: Option<Arc<Gate>>,
}

/// One worker's own view of one pool. A request keeps an `Arc` of it: the count is on the worker's own cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Lane {
    /// The worker.
    pub worker: usize,
    /// The color.
    pub color: Color,
    /// What [`Headers::expose_color`] shows, made once: `green`, or `green@abc`.
    pub exposed: Option<(http::HeaderName, http::HeaderValue)>,
    /// The generation of the app when this was built.
    pub generation: u64,
    /// What the service is like.
    pub settings: Arc<Settings>,
    /// The worker's cells.
    pub cells: Arc<PoolCells>,
    members: Vec<Arc<Member>>,
    serve_when_failing: bool,
}

impl Lane {
    /// A worker's view.
    #[must_use]
    #[allow(
        clippy::too_many_arguments,
        reason = "one constructor of a plain record, called in one place"
    )]
    pub(super) fn new(
        worker: usize,
        color: Color,
        exposed: Option<(http::HeaderName, http::HeaderValue)>,
        generation: u64,
        settings: Arc<Settings>,
        cells: Arc<PoolCells>,
        members: Vec<Arc<Member>>,
        serve_when_failing: bool,
    ) -> Self {
        Self {
            worker,
            color,
            exposed,
            generation,
            settings,
            cells,
            members,
            serve_when_failing,
        }
    }

    /// Whether any endpoint may be picked.
    #[must_use]
    pub fn has_usable(&self) -> bool {
        self.members.iter().any(|member| usable(member)) || (self.serve_when_failing && self.has_failing())
    }

    fn has_failing(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.endpoint.health() == Health::Failing)
    }

    /// Whether there is a gate for explicit traffic: its color is not drained.
    #[must_use]
    pub fn takes_explicit(&self) -> bool {
        self.members.iter().any(|member| member.explicit.is_some())
    }

    /// Steps 2b and 3 of a request: pick an endpoint and claim it.
    ///
    /// The policy chooses among the usable endpoints, walking on from `ticket`, which the caller raises by one a
    /// request. `tried`, which have failed the request already, and ejected ones are left out if there are others.
    ///
    /// # Errors
    /// [`PickError::Closed`]: load the table again. [`PickError::Empty`]: nothing to send to. [`PickError::Full`]: all
    /// have as many requests as they may have, or others wait already.
    pub fn pick(&self, ticket: usize, explicit: bool, tried: &[u64]) -> Result<Claim, PickError> {
        match self.queue() {
            None => self.pick_any(ticket, explicit, tried),
            Some(queue) => self.pick_behind(queue, ticket, explicit, tried),
        }
    }

    /// The same, past `balance.max_in_flight`: the proof of a switch must not wait for the app's clients.
    ///
    /// # Errors
    /// As [`Lane::pick`]; never [`PickError::Full`].
    pub fn pick_any(&self, ticket: usize, explicit: bool, tried: &[u64]) -> Result<Claim, PickError> {
        let member = self.select(ticket, tried, |_| true)?;
        if self.members.len() > 1 && !member.endpoint.breaker.admit(now, self.settings.balance.ejected) {
            // Somebody else was faster with the trial: the next choice leaves it out.
            let member = self.select(ticket, tried, |_| true)?;
            return self.claim(member, explicit);
        }
        self.claim(member, explicit)
    }

    /// How many endpoints it has.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn claim(&self, member: &Member, explicit: bool) -> Result<Claim, PickError> {
        let gate = if explicit { &member.explicit } else { &member.open };
        // No gate is no permission; a closed one says that this table is no longer the newest.
        let gate = gate.as_ref().ok_or(PickError::Empty)?;
        gate.claim(self.worker).ok_or(PickError::Closed)
    }

    /// Whether there is a usable endpoint besides these.
    #[must_use]
    pub fn has_other(&self, tried: &[u64]) -> bool {
        let fresh = |member: &Arc<Member>| taking(member) && !tried.contains(&member.endpoint.id);
        self.members.iter().any(fresh)
    }

    /// The best there is: of the endpoints that a request should go to, one that has room. It waits for them rather than
    /// go to worse ones.
    pub(super) fn select(
        &self,
        ticket: usize,
        tried: &[u64],
        room: impl Fn(&Member) -> bool,
    ) -> Result<&Member, PickError> {
        if let [only] = self.members.as_slice() {
            return match usable(only) || self.serves_failing(only) {
                true if room(only) => Ok(only),
                true => Err(PickError::Full),
                false => Err(PickError::Empty),
            };
        }
        let untried = |member: &Member| !tried.contains(&member.endpoint.id);
        self.among(ticket, |member| taking(member) && untried(member), &room)
            .or_else(|| self.among(ticket, |member| usable(member) && untried(member), &room))
            .or_else(|| self.among(ticket, usable, &room))
            .or_else(|| self.among(ticket, |member| self.serves_failing(member), &room))
            .unwrap_or(Err(PickError::Empty))
    }

    /// `None` when there is none of those wanted, with room or without.
    fn among(
        &self,
        ticket: usize,
        wanted: impl Fn(&Member) -> bool,
        room: impl Fn(&Member) -> bool,
    ) -> Option<Result<&Member, PickError>> {
        let found = self.by_policy(ticket, |member| wanted(member) && room(member));
        let full = || self.members.iter().any(|member| wanted(member));
        found.map(Ok).or_else(|| full().then_some(Err(PickError::Full)))
    }

    fn by_policy(&self, ticket: usize, wanted: impl Fn(&Member) -> bool) -> Option<&Member> {
        match self.settings.balance.policy {
            BalancePolicy::LeastRequest => self.lesser_of_two(ticket, wanted),
            BalancePolicy::RoundRobin => self.walk(ticket).find(|member| wanted(member)),
            BalancePolicy::Random => {
                // Among those wanted each is as likely: a walk from a random place would favour a gap's neighbour.
                let count = self.members.iter().filter(|member| wanted(member)).count();
                let nth = spread(ticket).checked_rem(count)?;
                self.walk(0).filter(|member| wanted(member)).nth(nth)
            }
        }
    }

    fn walk(&self, from: usize) -> impl Iterator<Item = &Member> {
        let count = self.members.len();
        (0..count).map(move |step| &*self.members[(from % count + step) % count])
    }

    /// A request to this endpoint has failed as [`Breaker::failed`] has it. True: it is ejected from now on.
    ///
    /// [`Breaker::failed`]: crate::upstream::Breaker::failed
    #[must_use]
    pub fn failed(&self, endpoint: &Endpoint) -> bool {
        let balance = &self.settings.balance;
        let others = self
            .members
            .iter()
            .any(|member| member.endpoint.id != endpoint.id && taking(member));
        endpoint
            .breaker
            .failed(now(), balance.failures, balance.ejected, others)
    }

    fn lesser_of_two(&self, ticket: usize, wanted: impl Fn(&Member) -> bool) -> Option<&Member> {
        let mut two = self.walk(ticket).filter(|member| wanted(member));
        let first = two.next()?;
        let second = two.next().unwrap_or(first);
        Some(if self.load_of(second) < self.load_of(first) {
            second
        } else {
            first
        })
    }

    fn load_of(&self, member: &Member) -> u64 {
        member
            .open
            .as_ref()
            .map_or(0, |gate| gate.in_flight_on(self.worker))
    }

    fn serves_failing(&self, member: &Member) -> bool {
        self.serve_when_failing && member.endpoint.health() == Health::Failing
    }
}

/// Whether it is usable and not ejected.
fn taking(member: &Member) -> bool {
    usable(member) && !member.endpoint.breaker.is_ejected(now)
}

/// A ticket's bits, spread as if by chance (the finaliser of splitmix64).
fn spread(ticket: usize) -> usize {
    let mut n = (ticket as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from((n ^ (n >> 31)) >> 1).unwrap_or(0)
}

fn usable(member: &Member) -> bool {
    matches!(member.endpoint.health(), Health::Healthy | Health::Unknown)
}

/// Why no endpoint was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// The gate is closed: a newer table is out, or comes with the next load.
    Closed,
    /// No endpoint is usable: 503.
    Empty,
    /// The usable ones have as many requests as they may have: wait.
    Full,
}
