//! Whether a request that failed goes out once more, and what it takes to write it anew.
//!
//! [`decide`] is pure. The account that a request keeps of its tries, [`Tries`], asks it.

use std::cell::RefCell;
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method, Uri, Version};

use super::error::ProxyError;
use super::exchange::Exchange;
use super::queue::Waiting;
use super::request_id::RequestIds;
use super::worker::Worker;
use crate::routing::Lane;

/// What went wrong, as far as another try is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Not a byte of the request was sent: there was no connection, or only dead ones.
    Unsent,
    /// The connection ended behind the request, and before the head of an answer: it may have been acted on.
    Reset,
    /// Anything else. The app is busy with it or has answered nonsense, or somebody has ended it on purpose.
    Otherwise,
}

/// How much of the request's body can still be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// It has none.
    None,
    /// All of it.
    Whole,
    /// What was read of it is gone.
    Begun,
}

/// All that a decision is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) failed: Failed,
    /// Tries so far, this one included.
    pub(super) tries: u32,
    /// Tries in all that the app allows.
    pub(super) attempts: u32,
    pub(super) method: &'a Method,
    pub(super) body: BodyState,
    /// There is an endpoint that was not tried yet.
    pub(super) elsewhere: bool,
    /// The retry budget has room.
    pub(super) budget: bool,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Once more, and nobody is charged for it.
    Free,
    /// Once more, on the budget.
    Charged,
    /// The failure is the answer.
    Enough,
}

/// Whether the request goes out once more.
///
/// What was never sent may be sent whatever it is. What may have been acted on is repeated only if that is the same as
/// doing it once (RFC 9110 §9.2.2) and no byte of a body is missing. A time-out is no reason: the app is still busy
/// with the first. What was not sent and has another endpoint to go to is free, because that one gets what it would
/// have got anyway; everything else multiplies load and is on the budget.
pub(super) fn decide(question: Question<'_>) -> Verdict {
    let Question {
        failed,
        tries,
        attempts,
        method,
        body,
        elsewhere,
        budget,
    } = question;
    if tries >= attempts {
        return Verdict::Enough;
    }
    let may = match (failed, body) {
        (Failed::Otherwise, _) | (_, BodyState::Begun) => false,
        (Failed::Unsent, _) => true,
        (Failed::Reset, BodyState::None) => method.is_idempotent(),
        (Failed::Reset, BodyState::Whole) => false,
    };
    match (may, failed == Failed::Unsent && elsewhere) {
        (false, _) => Verdict::Enough,
        (true, true) => Verdict::Free,
        (true, false) if budget => Verdict::Charged,
        (true, false) => Verdict::Enough,
    }
}

/// A request's account of its tries.
#[derive(Debug, Default)]
pub(super) struct Tries {
    made: u32,
    /// Where the walk over the endpoints begins. Retries take no ticket of their own, or of two endpoints the same one
    /// would be asked first every time.
    ticket: Option<usize>,
    /// Where the source of ids stood at the first try.
    ids: Option<u64>,
    /// Endpoints that have failed it. Allocates nothing before the first.
    failed: Vec<u64>,
    /// It waits for room, or did until now.
    waiting: Option<Box<Waiting>>,
}

impl Tries {
    /// A try begins through this lane. The first counts as the request towards the budget.
    pub(super) fn begins(&mut self, worker: &Worker, exchange: &Exchange, lane: &Lane) {
        if self.made == 0 {
            lane.settings
                .budget(worker.index)
                .request(worker.second(exchange.begun()));
        }
        self.made += 1;
        self.waiting = None;
    }

    /// Do what draws ids: every try draws the same, so that the logs of all apps show one request.
    pub(super) fn draw(&mut self, ids: &RequestIds, work: impl FnOnce()) {
        let now = ids.stand(self.ids);
        self.ids.get_or_insert(now);
        work();
        if *self.ids.get_or_insert(now) != now {
            ids.stand(Some(now));
        }
    }

    /// Whether no try was made yet.
    pub(super) fn is_first(&self) -> bool {
        self.made == 0
    }

    /// The request's ticket.
    pub(super) fn ticket(&mut self, worker: &Worker) -> usize {
        *self.ticket.get_or_insert_with(|| worker.ticket())
    }

    /// Its wait for room, until then if it begins now; and the endpoints to leave out.
    pub(super) fn waiting(&mut self, until: Instant) -> (&mut Waiting, &[u64]) {
        let waiting = self.waiting.get_or_insert_with(|| Box::new(Waiting::new(until)));
        (waiting, &self.failed)
    }

    /// Endpoints to leave out if there are others.
    pub(super) fn failed(&self) -> &[u64] {
        &self.failed
    }

    /// The try has failed. True: the claim is given up, and another one may be taken.
    pub(super) fn once_more(
        &mut self,
        worker: &Worker,
        exchange: &Exchange,
        lane: &Lane,
        (failed, method, body): (Failed, &Method, BodyState),
    ) -> bool {
        let endpoint = exchange.with_claim(|claim| claim.endpoint().id);
        self.failed.extend(endpoint);
        let retry = lane.settings.retry;
        let (budget, now) = (lane.settings.budget(worker.index), worker.second(Instant::now()));
        let verdict = decide(Question {
            failed,
            tries: self.made,
            attempts: retry.attempts,
            method,
            body,
            elsewhere: lane.has_other(&self.failed),
            budget: budget.allows(now, retry.budget),
        });
        if verdict == Verdict::Enough {
            return false;
        }
        if verdict == Verdict::Charged {
            budget.retry(now);
        }
        exchange.retried();
        exchange.unclaim();
        true
    }
}

/// A client's head, kept until the answer's is there: hyper lets nobody have back what it has sent.
///
/// The values share the bytes of the original, and the list is one of the worker's: a request allocates nothing for it.
#[derive(Debug)]
pub(super) struct Spare<'a> {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Fields,
    lists: &'a SpareLists,
}

type Fields = Vec<(HeaderName, HeaderValue)>;

/// A worker's lists that no request has now.
#[derive(Debug, Default)]
pub(super) struct SpareLists(RefCell<Vec<Fields>>);

impl SpareLists {
    /// As many as are kept for the next burst, and the most fields that one may have room for: a few KiB in all.
    const MAX: (usize, usize) = (64, 32);
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.fields);
        list.clear();
        let (lists, fields) = SpareLists::MAX;
        let mut free = self.lists.0.borrow_mut();
        if free.len() < lists && list.capacity() <= fields {
            free.push(list);
        }
    }
}

impl<'a> Spare<'a> {
    /// Of a head that is not prepared yet, so that a second try is prepared for where it goes.
    pub(super) fn of(head: &http::request::Parts, lists: &'a SpareLists) -> Self {
        let field = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone());
        let mut fields = lists.0.borrow_mut().pop().unwrap_or_default();
        fields.extend(head.headers.iter().map(field));
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            fields,
            lists,
        }
    }

    /// The request's method.
    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The head again.
    pub(super) fn into_head(mut self) -> http::request::Parts {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = std::mem::take(&mut self.method);
        head.uri = std::mem::take(&mut self.uri);
        head.version = self.version;
        // `extend` would let the last of several fields of a name replace the others.
        for (name, value) in self.fields.drain(..) {
            head.headers.append(name, value);
        }
        head
    }
}

/// What a failure means for another try.
pub(super) fn kind_of(error: ProxyError) -> Failed {
    match error {
        ProxyError::ConnectFailed | ProxyError::ConnectTimeout | ProxyError::TlsFailed => Failed::Unsent,
        ProxyError::Reset => Failed::Reset,
        _ => Failed::Otherwise,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &Method = &Method::GET;
    const POST: &Method = &Method::POST;

    #[test]
    fn the_table() {
        use BodyState::{Begun, None, Whole};
        use Failed::{Otherwise, Reset, Unsent};
        use Verdict::{Charged, Enough, Free};
        // Failed, method, body, elsewhere, budget → verdict, of two attempts the first.
        let table = [
            (Unsent, GET, None, true, true, Free),
            (Unsent, GET, None, true, false, Free),
            (Unsent, GET, None, false, true, Charged),
            (Unsent, GET, None, false, false, Enough),
            (Unsent, POST, Whole, true, false, Free),
            (Unsent, POST, Whole, false, true, Charged),
            (Unsent, POST, None, true, true, Free),
            (Unsent, POST, Begun, true, true, Enough),
            (Reset, GET, None, true, true, Charged),
            (Reset, GET, None, true, false, Enough),
            (Reset, GET, None, false, true, Charged),
            (Reset, GET, Whole, true, true, Enough),
            (Reset, GET, Begun, true, true, Enough),
            (Reset, &Method::HEAD, None, true, true, Charged),
            (Reset, &Method::DELETE, None, true, true, Charged),
            (Reset, &Method::PUT, None, true, true, Charged),
            (Reset, &Method::PUT, Begun, true, true, Enough),
            (Reset, POST, None, true, true, Enough),
            (Reset, POST, Whole, true, true, Enough),
            (Reset, &Method::PATCH, None, true, true, Enough),
            (Reset, &Method::CONNECT, None, true, true, Enough),
            (Otherwise, GET, None, true, true, Enough),
            (Otherwise, POST, Whole, true, true, Enough),
        ];
        for (failed, method, body, elsewhere, budget, verdict) in table {
            let question = Question {
                failed,
                tries: 1,
                attempts: 2,
                method,
                body,
                elsewhere,
                budget,
            };
            assert_eq!(decide(question), verdict, "{question:?}");
            let last = Question { tries: 2, ..question };
            assert_eq!(decide(last), Enough, "{last:?}");
        }
    }

    fn question() -> impl Strategy<Value = (Question<'static>, Verdict)> {
        const METHODS: [Method; 7] = [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::POST,
            Method::PATCH,
            Method::OPTIONS,
        ];
        static KEPT: [Method; 7] = METHODS;
        let failed = prop_oneof![Just(Failed::Unsent), Just(Failed::Reset), Just(Failed::Otherwise)];
        let body = prop_oneof![
            Just(BodyState::None),
            Just(BodyState::Whole),
            Just(BodyState::Begun)
        ];
        let rest = (1_u32..5, 1_u32..5, 0_usize..7, any::<bool>(), any::<bool>());
        (failed, body, rest).prop_map(|(failed, body, (tries, attempts, method, elsewhere, budget))| {
            let question = Question {
                failed,
                tries,
                attempts,
                method: &KEPT[method],
                body,
                elsewhere,
                budget,
            };
            (question, decide(question))
        })
    }

    proptest! {
        #[test]
        fn what_may_have_been_acted_on_is_never_done_twice((question, verdict) in question()) {
            let again = verdict != Verdict::Enough;
            let acted_on = question.failed != Failed::Unsent;
            prop_assert!(!(again && acted_on && !question.method.is_idempotent()));
            prop_assert!(!(again && acted_on && question.body != BodyState::None));
            prop_assert!(!(again && question.body == BodyState::Begun));
            prop_assert!(!(again && question.failed == Failed::Otherwise));
        }

        #[test]
        fn tries_and_budget_bound_it((question, verdict) in question()) {
            prop_assert!(question.tries < question.attempts || verdict == Verdict::Enough);
            prop_assert!(question.budget || verdict != Verdict::Charged);
            // Nothing sent and somewhere to go: no budget keeps it from going there.
            let free = question.failed == Failed::Unsent && question.elsewhere && question.body != BodyState::Begun;
            prop_assert!(!free || question.tries >= question.attempts || verdict == Verdict::Free);
        }
    }

    #[test]
    fn a_spare_is_the_head_that_came() {
        let request = http::Request::builder()
            .method("PUT")
            .uri("/a?b")
            .version(Version::HTTP_10)
            .header("x-a", "1")
            .header("x-a", "2")
            .header("host", "h")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let lists = SpareLists::default();
        let again = Spare::of(&head, &lists).into_head();
        let other = Spare::of(&again, &lists);
        assert_eq!(
            other.fields.len(),
            3,
            "a list is used again, without what was in it"
        );
        drop(other);
        assert_eq!(
            (&again.method, &again.uri, again.version),
            (&head.method, &head.uri, head.version)
        );
        assert_eq!(again.headers, head.headers);
    }
}
