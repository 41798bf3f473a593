//! An app on hyper that speaks what the proxy's upstream side can: HTTP/1.1 and HTTP/2, in clear text and over TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::backend::HEALTH;
use super::proxy;

/// A body of an answer.
pub type Body = BoxBody<Bytes, std::io::Error>;
type Answered = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = dyn Fn(Request<Incoming>) -> Answered + Send + Sync;

/// What an app speaks.
#[derive(Clone)]
pub enum Speaks {
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
    /// TLS; HTTP/2 if it was agreed on.
    Tls(Arc<ServerConfig>),
}

/// What is told to its connections.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Told {
    #[default]
    Serve,
    /// Finish what runs, take nothing new (GOAWAY).
    Leave,
    /// End now.
    Die,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    resumed: AtomicUsize,
    requests: AtomicUsize,
    most_at_once: AtomicUsize,
    at_once: AtomicUsize,
    protocols: Mutex<HashMap<String, usize>>,
}

/// The app. Stopped when dropped.
pub struct Service {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    told: watch::Sender<(usize, Told)>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A whole body.
pub fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

impl Service {
    /// Answers every request with this text; 200 for the health path.
    pub fn says(speaks: Speaks, text: &'static str) -> Self {
        Self::new(speaks, move |_| async move { Response::new(whole(text)) })
    }

    /// Answers by `handler`; the health path gets 200 by itself.
    pub fn new<F>(speaks: Speaks, handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::with_streams(speaks, 200, handler)
    }

    /// With a limit of its own of streams at the same time.
    pub fn with_streams<F>(
        speaks: Speaks,
        streams: u32,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        proxy::note_panics();
        let handler: Arc<Handler> = Arc::new(move |request| Box::pin(handler(request)));
        let shared = Arc::<Shared>::default();
        let (told, telling) = watch::channel((0, Told::Serve));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let of_thread = Arc::clone(&shared);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let accept = accept(listener, speaks, streams, handler, of_thread, telling);
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("backend-service".to_owned())
            .spawn(serve)
            .unwrap();
        Self {
            address: address.recv().unwrap(),
            shared,
            told,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Connections over all time on which there was HTTP.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Of them, those open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// TLS handshakes that went on with an earlier session.
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(SeqCst)
    }

    /// Requests that came, health probes left out.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// The most requests that it had at the same time.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(SeqCst)
    }

    /// Requests by protocol: `HTTP/1.1`, `HTTP/2.0`.
    pub fn over(&self, protocol: &str) -> usize {
        let protocols = self.shared.protocols.lock().unwrap();
        protocols.get(protocol).copied().unwrap_or(0)
    }

    /// Send GOAWAY on every connection; new ones are served.
    pub fn leave(&self) {
        self.told.send_modify(|told| *told = (told.0 + 1, Told::Leave));
    }

    /// End every connection at once; new ones are served.
    pub fn hang_up(&self) {
        self.told.send_modify(|told| *told = (told.0 + 1, Told::Die));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    streams: u32,
    handler: Arc<Handler>,
    shared: Arc<Shared>,
    telling: watch::Receiver<(usize, Told)>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let (speaks, handler, shared) = (speaks.clone(), Arc::clone(&handler), Arc::clone(&shared));
        let mut telling = telling.clone();
        telling.borrow_and_update();
        tokio::spawn(async move { open(stream, speaks, streams, handler, shared, telling).await });
    }
}

async fn open(
    stream: TcpStream,
    speaks: Speaks,
    streams: u32,
    handler: Arc<Handler>,
    shared: Arc<Shared>,
    telling: watch::Receiver<(usize, Told)>,
) {
    match speaks {
        Speaks::H2c => serve(stream, true, streams, handler, shared, telling).await,
        Speaks::Tls(config) => {
            // A client that refuses us ends here.
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
                return;
            };
            let connection = stream.get_ref().1;
            if connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                shared.resumed.fetch_add(1, SeqCst);
            }
            let is_http2 = connection.alpn_protocol() == Some(b"h2");
            serve(stream, is_http2, streams, handler, shared, telling).await;
        }
    }
}

async fn serve<S>(
    stream: S,
    is_http2: bool,
    streams: u32,
    handler: Arc<Handler>,
    shared: Arc<Shared>,
    mut telling: watch::Receiver<(usize, Told)>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let counted = AtomicUsize::new(0);
    let counted = Arc::new(counted);
    let of_service = Arc::clone(&shared);
    let of_connection = Arc::clone(&counted);
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, shared) = (Arc::clone(&handler), Arc::clone(&of_service));
        if of_connection.fetch_add(1, SeqCst) == 0 {
            shared.connections.fetch_add(1, SeqCst);
            shared.open.fetch_add(1, SeqCst);
        }
        async move { Ok::<_, Infallible>(answer(&*handler, &shared, request).await) }
    });
    let io = TokioIo::new(stream);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(streams).timer(TokioTimer::new());
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        loop {
            tokio::select! {
                _ = connection.as_mut() => break,
                Ok(()) = telling.changed() => match telling.borrow_and_update().1 {
                    Told::Leave => connection.as_mut().graceful_shutdown(),
                    Told::Die => break,
                    Told::Serve => {}
                },
            }
        }
    } else {
        let connection = http1::Builder::new()
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                _ = connection.as_mut() => break,
                Ok(()) = telling.changed() => match telling.borrow_and_update().1 {
                    Told::Leave => connection.as_mut().graceful_shutdown(),
                    Told::Die => break,
                    Told::Serve => {}
                },
            }
        }
    }
    if counted.load(SeqCst) > 0 {
        shared.open.fetch_sub(1, SeqCst);
    }
}

async fn answer(handler: &Handler, shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == HEALTH {
        return Response::new(whole("fine"));
    }
    shared.requests.fetch_add(1, SeqCst);
    let now = shared.at_once.fetch_add(1, SeqCst) + 1;
    shared.most_at_once.fetch_max(now, SeqCst);
    *shared
        .protocols
        .lock()
        .unwrap()
        .entry(format!("{:?}", request.version()))
        .or_default() += 1;
    let answer = handler(request).await;
    shared.at_once.fetch_sub(1, SeqCst);
    answer
}

/// A while, for handlers that must be slow enough for something else to happen meanwhile.
pub async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
