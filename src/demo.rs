//! `cutover demo`: two built-in colors with the real proxy in front, and a line that shows who answers.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::runtime::{Builder, LocalOptions};

use crate::app::{App, RunError, Source, Until};
use crate::config::{self, ListenAddress};
use crate::metrics::ops;
use crate::rollout::Color;
use crate::shutdown;

/// Between two requests of the live line.
const BEAT: Duration = Duration::from_millis(100);
/// The port that people expect; another one is taken when it is not free.
const USUAL_PORT: u16 = 8080;

/// Run the demo until Ctrl-C or SIGTERM.
///
/// # Errors
/// As [`crate::app::run`]; and when `out` cannot be written to.
pub fn run(out: &mut (dyn Write + Send)) -> Result<(), RunError> {
    let system = |doing| move |source| RunError::System { doing, source };
    ops::init("warn").map_err(|error| RunError::Log(error.to_string()))?;
    let home = Home::new().map_err(system("making a folder for the demo's state"))?;
    let blue = start_color(Color::Blue).map_err(system("starting the blue app"))?;
    let green = start_color(Color::Green).map_err(system("starting the green app"))?;
    let text = config_text(&home.0, blue, green);
    let config = config::parse(&text, "demo", &|_| None).map_err(RunError::Config)?;
    let app = App::bind(Source { config, file: None }, Some(Color::Blue))?;
    let Some(ListenAddress::Tcp(proxy)) = app.addresses().into_iter().next() else {
        return Err(RunError::Log("the demo listens on TCP".to_owned()));
    };
    introduce(out, &app, proxy, blue, green).map_err(system("writing to the terminal"))?;
    let (end, told) = shutdown::channel();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let live = scope.spawn(|| live_line(out, proxy, &stop));
        scope.spawn(|| {
            if let Err(error) = wait_for_signal() {
                tracing::error!(%error, "no signals can be had; the demo ends now");
            }
            // The live line first: what it asks while the proxy goes down would look like a failure.
            stop.store(true, Relaxed);
            let _ = live.join();
            end.request();
        });
        app.run(Until::Told(told))
    })
}

/// Wait for Ctrl-C or SIGTERM.
fn wait_for_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let (mut interrupt, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = term.recv() => {}
        }
        Ok(())
    })
}

/// The demo's state directory, removed at the end.
struct Home(PathBuf);

impl Home {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("cutover-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A leftover in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config_text(home: &Path, blue: SocketAddr, green: SocketAddr) -> String {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    let listen = TcpListener::bind(usual).map_or(0, |_| USUAL_PORT);
    format!(
        "[server]\nstate_dir = {home:?}\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:{listen}\"\n\
         [log]\naccess = \"off\"\nlevel = \"warn\"\n\
         [app.web]\nblue = [\"{blue}\"]\ngreen = [\"{green}\"]\nhealth = {{ path = \"/healthz\", interval = \"500ms\" }}\n",
    )
}

fn introduce(
    out: &mut dyn Write,
    app: &App,
    proxy: SocketAddr,
    blue: SocketAddr,
    green: SocketAddr,
) -> io::Result<()> {
    let program =
        std::env::current_exe().map_or_else(|_| "cutover".to_owned(), |path| path.display().to_string());
    writeln!(out, "cutover demo\n")?;
    writeln!(
        out,
        "  proxy  http://{proxy}     blue  http://{blue}     green  http://{green}"
    )?;
    if let Some(address) = app.admin_address() {
        writeln!(out, "  metrics  http://{address}/metrics")?;
    }
    writeln!(out, "\nType these in another terminal:\n")?;
    writeln!(
        out,
        "  export CUTOVER_ADMIN=unix:{}",
        app.admin_socket().display()
    )?;
    for (command, what) in [
        ("status", "what is active, and whether a rollback is ready"),
        ("switch green", "move all traffic; the answer is a promise"),
        ("rollback", "back, at once"),
        ("weight green=10", "10 % of the requests"),
        ("history", "who did what, and how many requests failed meanwhile"),
    ] {
        writeln!(out, "  {program} {command:<16} # {what}")?;
    }
    writeln!(
        out,
        "  curl -i http://{proxy}/\n\nCtrl-C ends it. Who answers now:\n"
    )?;
    out.flush()
}

/// Ask the proxy ten times a second and show who answered: a line that moves on a terminal, a line for each change
/// elsewhere.
fn live_line(out: &mut dyn Write, proxy: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let terminal = io::stdout().is_terminal();
    let mut last = String::new();
    let (mut asked, mut failed) = (0_u64, 0_u64);
    let mut recent = String::new();
    while !stop.load(Relaxed) {
        std::thread::sleep(BEAT);
        asked += 1;
        let who = ask(proxy).unwrap_or_else(|error| {
            failed += 1;
            error.to_string()
        });
        if terminal {
            recent.push(match who.as_str() {
                "blue" => '■',
                "green" => '▲',
                _ => '✖',
            });
            if recent.chars().count() > 40 {
                recent.remove(0);
            }
            write!(
                out,
                "\r\x1b[2K  {recent}  {who}  ({asked} requests, {failed} failed)"
            )?;
            out.flush()?;
        } else if who != last {
            writeln!(out, "  {who}  ({asked} requests, {failed} failed)")?;
            out.flush()?;
        }
        last = who;
    }
    writeln!(out)
}

/// One request, as any client would make it: the color is in the body.
fn ask(proxy: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&proxy, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nhost: {proxy}\r\nconnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream.take(64 * 1024));
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if !status.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(status.trim().to_owned()));
    }
    Ok(body.split_whitespace().last().unwrap_or_default().to_owned())
}

/// A small app of one color on a free port. It lives as long as the process.
fn start_color(color: Color) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let _: JoinHandle<()> = std::thread::Builder::new()
        .name(format!("demo-{color}"))
        .spawn(move || {
            if let Err(error) = serve_color(color, listener) {
                tracing::error!(%color, %error, "the demo's app failed");
            }
        })?;
    Ok(address)
}

fn serve_color(color: Color, listener: TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let answer = service_fn(move |request: Request<Incoming>| async move {
                let text = match request.uri().path() {
                    "/healthz" => "ok\n".to_owned(),
                    _ => format!("Hello from {color}\n"),
                };
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::task::spawn_local(async move {
                // A client that goes away early is no news.
                let _ = http1::Builder::new().serve_connection(io, answer).await;
            });
        }
    })
}
