//! Apps that misbehave on command, clients that ask and ask, and what became of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::backend::{Backend, HEALTH, ok};
use super::proxy::Proxy;
use super::until;
use super::wire::{Message, Wire};

/// An app whose manners can be changed while it runs.
#[derive(Clone, Default)]
pub struct Manners {
    /// Of ten requests so many get 500.
    pub errors: Arc<AtomicUsize>,
    /// Milliseconds before an answer.
    pub slow: Arc<AtomicU64>,
    /// Milliseconds before each 25th answer.
    pub tail: Arc<AtomicU64>,
    /// The health page says 503.
    pub ill: Arc<AtomicBool>,
    /// The health page says 503 so often, then 200 so often, and so on.
    pub flaps: Arc<AtomicUsize>,
    /// Connections are taken, and nothing is answered any more, no health page either.
    pub silent: Arc<AtomicBool>,
    /// `x-app-revision` of every answer; empty: none.
    pub revision: Arc<Mutex<String>>,
    fails: Arc<Mutex<Option<Fails>>>,
}

type Fails = Box<dyn Fn(&Message) -> bool + Send>;

impl Manners {
    pub fn backend(&self, text: &'static str) -> Backend {
        let manners = self.clone();
        let (count, probes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Backend::handler(move |request| manners.answer(request, text, &count, &probes))
    }

    /// Requests for which this says yes get 500 from now on.
    pub fn fail(&self, which: impl Fn(&Message) -> bool + Send + 'static) {
        *self.fails.lock().unwrap() = Some(Box::new(which));
    }

    fn answer(&self, request: &Message, text: &str, count: &AtomicUsize, probes: &AtomicUsize) -> Vec<u8> {
        while self.silent.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let revision = self.revision.lock().unwrap().clone();
        let marked = |answer: String| match revision.as_str() {
            "" => answer.into_bytes(),
            revision => answer
                .replacen("\r\n", &format!("\r\nx-app-revision: {revision}\r\n"), 1)
                .into_bytes(),
        };
        let refuse = |status: &str| marked(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        if request.target() == HEALTH {
            let flaps = self.flaps.load(SeqCst);
            let ill = flaps > 0 && (probes.fetch_add(1, SeqCst) / flaps).is_multiple_of(2);
            return if ill || self.ill.load(SeqCst) {
                refuse("503 Ill")
            } else {
                marked(String::from_utf8(ok("fine")).unwrap())
            };
        }
        let number = count.fetch_add(1, SeqCst);
        let pause = match number % 25 {
            0 => self.tail.load(SeqCst).max(self.slow.load(SeqCst)),
            _ => self.slow.load(SeqCst),
        };
        std::thread::sleep(Duration::from_millis(pause));
        let fails = self.fails.lock().unwrap();
        if number % 10 < self.errors.load(SeqCst) || fails.as_ref().is_some_and(|fails| fails(request)) {
            refuse("500 Oops")
        } else {
            marked(String::from_utf8(ok(text)).unwrap())
        }
    }
}

/// What a client asks for with its n-th request.
type Mix = fn(u64) -> (&'static str, &'static str);

/// Clients that ask and ask until they are dropped: 50 requests a second each, at most.
pub struct Load {
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    asked: AtomicU64,
    harmed: AtomicU64,
    /// When the first of them was.
    first: Mutex<Option<Timestamp>>,
}

impl Load {
    /// 200 requests a second, all alike.
    pub fn on(proxy: &Proxy) -> Self {
        Self::of(proxy, |_| ("GET", "/"))
    }

    /// Three kinds of requests: pages, an API under `/api`, and things that are sent.
    pub fn mixed(proxy: &Proxy) -> Self {
        Self::of(proxy, |number| match number % 4 {
            0 => ("POST", "/"),
            1 => ("GET", "/api/1"),
            _ => ("GET", "/"),
        })
    }

    pub fn of(proxy: &Proxy, mix: Mix) -> Self {
        let (address, stop, told) = (
            proxy.address(),
            Arc::<AtomicBool>::default(),
            Arc::<Told>::default(),
        );
        let client = |_| {
            let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
            std::thread::spawn(move || {
                let mut next = Instant::now();
                while !stop.load(SeqCst) {
                    let mut wire = Wire::tcp(address);
                    let answer = match mix(told.asked.fetch_add(1, SeqCst)) {
                        ("POST", path) => wire.post(path, "{}"),
                        (_, path) => wire.get(path),
                    };
                    if answer.status() >= 500 {
                        told.harmed.fetch_add(1, SeqCst);
                        told.first.lock().unwrap().get_or_insert_with(Timestamp::now);
                    }
                    next = (next + Duration::from_millis(20)).max(Instant::now());
                    std::thread::sleep(next - Instant::now());
                }
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, told, clients }
    }

    /// Requests until now.
    pub fn asked(&self) -> u64 {
        self.told.asked.load(SeqCst)
    }

    /// Of them, answered with 500 or more.
    pub fn harmed(&self) -> u64 {
        self.told.harmed.load(SeqCst)
    }

    /// When the first of those was.
    pub fn first_harm(&self) -> Option<Timestamp> {
        *self.told.first.lock().unwrap()
    }

    /// Wait for so many more requests.
    pub fn more(&self, count: u64) {
        let to = self.asked() + count;
        until("more requests", || self.asked() >= to);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for client in self.clients.drain(..) {
            let ended = client.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}
