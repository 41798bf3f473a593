//! Backends: scripted byte for byte, or well behaved. All of them record every byte that they are sent.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::wire::{Message, Wire, requests_in};
use super::{PATIENCE, proxy};

/// The path that health probes ask for; not counted among the requests.
pub const HEALTH: &str = "/healthz";

/// Serves one connection; the number counts those on which something was sent.
type Script = dyn Fn(&mut Wire, usize) + Send + Sync;

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    used: AtomicUsize,
    sockets: Mutex<Vec<Box<dyn Fn() + Send>>>,
    records: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    open: AtomicUsize,
    ended: AtomicUsize,
}

/// An app behind the proxy. Stopped when dropped.
pub struct Backend {
    address: String,
    shared: Arc<Shared>,
}

impl Backend {
    /// Well behaved: every request gets 200 with this body, over kept-alive connections.
    pub fn says(text: &'static str) -> Self {
        Self::handler(move |_| ok(text))
    }

    pub fn blue() -> Self {
        Self::says("blue")
    }

    pub fn green() -> Self {
        Self::says("green")
    }

    /// Well behaved, with other answers: whole requests in, bytes out.
    pub fn handler(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(move |wire, _| {
            while let Some(request) = wire.request() {
                wire.send(answer(&request));
            }
        })
    }

    /// Answers the first request of each connection with these bytes and ends the connection.
    pub fn answers(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::script(move |wire, _| {
            if wire.request().is_some() {
                wire.send(&bytes);
            }
        })
    }

    /// Does anything at all. When the script returns, the connection is ended and the rest of it recorded.
    pub fn script(script: impl Fn(&mut Wire, usize) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// At a given address: an app that comes back.
    pub fn at(address: SocketAddr, script: impl Fn(&mut Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || {
            let (stream, _) = listener.accept().ok()?;
            let closer = stream.try_clone().ok()?;
            let mut first = [0];
            let used = {
                let stream = stream.try_clone().ok()?;
                move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE * 10));
                    matches!(stream.peek(&mut first), Ok(1))
                }
            };
            let close: Box<dyn Fn() + Send> = Box::new(move || {
                let _ = closer.shutdown(Shutdown::Both);
            });
            Some((close, Box::new(used) as Used, Opened::Tcp(stream)))
        };
        Self::start(address.to_string(), accept, script)
    }

    /// On a Unix socket.
    pub fn unix(path: &Path, script: impl Fn(&mut Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = move || {
            let (stream, _) = listener.accept().ok()?;
            let closer = stream.try_clone().ok()?;
            let close: Box<dyn Fn() + Send> = Box::new(move || {
                let _ = closer.shutdown(Shutdown::Both);
            });
            Some((close, Box::new(|| true) as Used, Opened::Unix(stream)))
        };
        Self::start(format!("unix:{}", path.display()), accept, script)
    }

    fn start(
        address: String,
        accept: impl Fn() -> Option<(Box<dyn Fn() + Send>, Used, Opened)> + Send + 'static,
        script: impl Fn(&mut Wire, usize) + Send + Sync + 'static,
    ) -> Self {
        proxy::note_panics();
        let shared = Arc::<Shared>::default();
        let script: Arc<Script> = Arc::new(script);
        let of_thread = Arc::clone(&shared);
        spawn("backend-accept", move || {
            while let Some((close, used, opened)) = accept() {
                if of_thread.stopped.load(SeqCst) {
                    close();
                    return;
                }
                of_thread.sockets.lock().unwrap().push(close);
                let (shared, script) = (Arc::clone(&of_thread), Arc::clone(&script));
                spawn("backend", move || serve(&shared, &*script, used, opened));
            }
        });
        Self { address, shared }
    }

    /// As a configuration says it.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Stop listening and end every connection, as a killed process does.
    pub fn stop(&self) {
        if self.shared.stopped.swap(true, SeqCst) {
            return;
        }
        // Wakes the accepting thread; it looks at the flag and drops the listener.
        match self.address.strip_prefix("unix:") {
            Some(path) => drop(UnixStream::connect(path)),
            None => drop(TcpStream::connect(&self.address)),
        }
        self.hang_up();
    }

    /// End every connection and go on listening.
    pub fn hang_up(&self) {
        for close in self.shared.sockets.lock().unwrap().drain(..) {
            close();
        }
    }

    /// Stopped, and nobody listens any more.
    pub fn stop_and_wait(&self) {
        self.stop();
        super::until("the backend's port is closed", || {
            TcpStream::connect(&self.address).is_err()
        });
    }

    /// What came, connection by connection, byte for byte; probes that sent nothing are left out.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let records = self.shared.records.lock().unwrap();
        records
            .iter()
            .map(|record| record.lock().unwrap().clone())
            .collect()
    }

    /// The whole requests that a strict reader finds in what came, health probes left out. Nothing may be left over.
    #[track_caller]
    pub fn requests(&self) -> Vec<Message> {
        let mut all = Vec::new();
        for bytes in self.received() {
            let (requests, left) = requests_in(&bytes);
            assert_eq!(String::from_utf8_lossy(&left), "", "left over after {requests:?}");
            all.extend(requests);
        }
        all.retain(|request| request.target() != HEALTH);
        all
    }

    /// The only request that came.
    #[track_caller]
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Connections on which something was sent, over all time.
    pub fn connections(&self) -> usize {
        self.shared.used.load(SeqCst)
    }

    /// Of those, the ones that the script has ended: the other end can know.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(SeqCst)
    }

    /// Of those, the ones still open.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

type Used = Box<dyn FnMut() -> bool + Send>;

enum Opened {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .unwrap();
}

fn serve(shared: &Shared, script: &Script, mut used: Used, opened: Opened) {
    // A TCP probe connects and says nothing.
    if !used() {
        return;
    }
    let mut wire = match opened {
        Opened::Tcp(stream) => Wire::of_tcp(stream),
        Opened::Unix(stream) => Wire::of_unix(stream),
    };
    let record = Arc::<Mutex<Vec<u8>>>::default();
    wire.record = Some(Arc::clone(&record));
    shared.records.lock().unwrap().push(record);
    let number = shared.used.fetch_add(1, SeqCst);
    shared.open.fetch_add(1, SeqCst);
    script(&mut wire, number);
    wire.finish();
    shared.ended.fetch_add(1, SeqCst);
    wire.rest();
    shared.open.fetch_sub(1, SeqCst);
}

/// A whole answer: 200 with a Content-Length.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
