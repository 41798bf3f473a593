//! docs/migrate: each team's nginx file and its translation, run before the same backend. What clients get and what the
//! backend sees must be the same, but for what docs/migrate-from-nginx.md says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{Backend, Seen, read_request};
use crate::ports;
use crate::server::{PATIENCE, Server, Site, cli_in, eventually};

/// One request, and what must be the same.
struct Ask {
    url: &'static str,
    curl: &'static [&'static str],
    same: Same,
}

enum Same {
    /// An app's answer: status, fields, body, and all that the app saw but these.
    App { but: &'static [&'static str] },
    /// The proxy's own: status and body.
    Own,
    /// The proxy's own in words of its own: status and `Location`.
    Status,
}

const APP: Same = Same::App { but: &[] };

const fn get(url: &'static str) -> Ask {
    ask(url, &[], APP)
}

const fn ask(url: &'static str, curl: &'static [&'static str], same: Same) -> Ask {
    Ask { url, curl, same }
}

/// What nginx does not send, and cutover does.
const MORE: [&str; 2] = ["x-forwarded-host", "x-request-id"];
/// Fields of answers that belong to the connection, or tell who answered.
const NOT_COMPARED: [&str; 6] = [
    "connection",
    "content-length",
    "date",
    "server",
    "transfer-encoding",
    "x-cutover-color",
];

#[test]
fn nocturna() {
    each("nocturna", |both| nocturna_is_the_same(&both));
}

fn nocturna_is_the_same(both: &Both) {
    let post = &[
        "-d",
        "{\"datetime\":\"1990-01-01T12:00:00\"}",
        "-H",
        "Content-Type: application/json",
    ];
    both.compare(&[
        get("http://nocturna.example/health"),
        ask("http://nocturna.example/v1/calculate/natal", post, APP),
        get("http://nocturna.example/a%2Fb/%7Euser?q=%20x&y=1"),
        get("http://staging.nocturna.example/staging"),
        ask("http://nocturna.example/status/418", &["-X", "DELETE"], APP),
        ask("http://other.example/", &[], Same::Status),
        ask(
            "http://nocturna.example/upload",
            &["--data-binary", "@2MiB"],
            Same::Status,
        ),
        ask("http://nocturna.example/head", &["--head"], APP),
    ]);
}

#[test]
fn forecaster() {
    each("forecaster", |both| forecaster_is_the_same(&both));
}

fn forecaster_is_the_same(both: &Both) {
    both.compare(&[
        get("http://forecaster.example/api/v1/health"),
        get("https://forecaster.example/api/v1/predict?horizon=7"),
        ask(
            "https://forecaster.example/api/v1/predict",
            &["-d", "a=1", "-H", "X-Request-ID: abc"],
            APP,
        ),
        ask("http://forecaster.example/nginx-health", &[], Same::Own),
        ask("https://forecaster.example/nginx-health", &[], Same::Own),
        get("http://forecaster.example/nginx-health/"),
    ]);
}

#[test]
fn ala() {
    each("ala", ala_is_the_same);
}

fn ala_is_the_same(mut both: Both) {
    // The balancer's own address ends the list here; nginx repeats the client's.
    let balanced = || Same::App {
        but: &["x-forwarded-for"],
    };
    let from = &["-H", "X-Forwarded-For: 203.0.113.5, 198.51.100.7, 127.0.0.9"];
    both.compare(&[
        ask(
            "https://ala.example/api/auth/request-code",
            &["-d", "phone=1"],
            balanced(),
        ),
        ask("https://ala.example/api/health", from, balanced()),
        ask("https://ala.example/", from, balanced()),
        ask("https://ala.example/assets/app.js", &[], balanced()),
        ask("https://ala.example/status/500", &[], balanced()),
        ask("http://ala.example/some/where?x=1", &[], Same::Status),
    ]);
    // Both down: the page, in place of nginx's words and ours.
    both.down.store(true, Ordering::SeqCst);
    both.backends.clear();
    let page = eventually("both show the page", PATIENCE, || {
        let [nginx, cutover] = both.fetch(&get("https://ala.example/"));
        (nginx.body == cutover.body && nginx.status >= 500 && cutover.status >= 500).then_some(cutover.body)
    });
    assert!(page.contains("We are back soon"), "{page}");
}

#[test]
fn vcci() {
    each("vcci", |both| vcci_is_the_same(&both));
}

fn vcci_is_the_same(both: &Both) {
    both.compare(&[
        get("http://vcci.example/v1/items?page=2"),
        get("http://vcci.example/v1/"),
        get("http://vcci.example/v1x"),
        get("http://vcci.example/"),
        ask("http://vcci.example/v1/items/7", &["-X", "PUT", "-d", "x"], APP),
        ask("http://vcci.example/gateway/health", &[], Same::Own),
        ask(
            "http://vcci.example/v1/upload",
            &["--data-binary", "@11MiB"],
            Same::Status,
        ),
    ]);
}

#[test]
fn mina() {
    each("mina", |both| mina_is_the_same(&both));
}

fn mina_is_the_same(both: &Both) {
    both.compare(&[
        get("http://mina.example/health"),
        get("http://mina.example/redirect"),
        ask("http://mina.example/cookie", &["-H", "Cookie: session=1"], APP),
    ]);
    // The copy is asked by its own name, and answers in the client's.
    let [_, cutover] = both.fetch(&get("http://mina.example/redirect"));
    assert_eq!(
        cutover.field("location").as_deref(),
        Some("http://mina.example/login?next=%2F")
    );
}

/// nginx and cutover, side by side before the same backends.
struct Both {
    folder: tempfile::TempDir,
    /// By the port in the files: that of nginx, that of cutover.
    listeners: BTreeMap<u16, [u16; 2]>,
    backends: Vec<Backend>,
    /// The apps hang up instead of answering, also on connections that are open already.
    down: Arc<AtomicBool>,
    nginx: Nginx,
    _site: Site,
    _cutover: Server,
}

/// The translation by hand, and the one that `cutover init` writes.
fn each(system: &str, test: impl Fn(Both)) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/migrate")
        .join(system);
    let read = |name: &str| std::fs::read_to_string(from.join(name)).expect("the system's file");
    let file = from.join("nginx.conf").display().to_string();
    let made = cli_in(
        &from,
        &["init", "--from-nginx", &file, "--health", "/health", "--print"],
    )
    .expect(0);
    for cutover in [read("cutover.toml"), made.stdout] {
        test(Both::run(system, read("nginx.conf"), cutover));
    }
}

impl Both {
    fn run(system: &str, nginx: String, cutover: String) -> Self {
        let (mut nginx, mut cutover) = (nginx, cutover);
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let site = Site::new("");
        let listens: BTreeSet<u16> = nginx
            .lines()
            .filter(|line| line.trim().starts_with("listen "))
            .flat_map(ports_in)
            .collect();
        let mut listeners = BTreeMap::new();
        for (at, port) in listens.iter().enumerate() {
            let of_cutover = if at == 0 { site.port } else { ports::free() };
            let own = [ports::free(), of_cutover];
            replace(&mut nginx, *port, own[0]);
            replace(&mut cutover, *port, own[1]);
            listeners.insert(*port, own);
        }
        let down = Arc::<AtomicBool>::default();
        let mut backends = Vec::new();
        let green = cutover
            .lines()
            .filter(|line| line.trim().starts_with("green"))
            .flat_map(ports_in);
        let green: BTreeSet<u16> = green.collect();
        for port in ports_in(&cutover)
            .into_iter()
            .filter(|port| !listeners.values().any(|own| own.contains(port)))
        {
            let color = if green.contains(&port) { "green" } else { "blue" };
            let backend = echo(color, Arc::clone(&down));
            let own = backend.address.port();
            replace(&mut nginx, port, own);
            replace(&mut cutover, port, own);
            backends.push(backend);
        }
        let here = folder.path().display().to_string();
        for text in [&mut nginx, &mut cutover] {
            *text = text.replace(&format!("/etc/{system}"), &here);
        }
        let state = format!("[server]\nstate_dir = {:?}\n", site.state());
        let cutover = match cutover.contains("[server]\n") {
            true => cutover.replace("[server]\n", &state),
            false => format!("{state}{cutover}"),
        };
        std::fs::write(site.config(), format!("{cutover}\n[log]\naccess = \"off\"\n"))
            .expect("write the config");
        let nginx = Nginx::start(folder.path(), &nginx, listeners.values().map(|own| own[0]));
        let cutover = site.run();
        Self {
            folder,
            listeners,
            backends,
            down,
            nginx,
            _site: site,
            _cutover: cutover,
        }
    }

    /// Ask both.
    fn fetch(&self, ask: &Ask) -> [Answer; 2] {
        let port = if ask.url.starts_with("https") { 8443 } else { 8080 };
        self.listeners[&port].map(|port| curl(self.folder.path(), port, ask))
    }

    #[track_caller]
    fn compare(&self, asks: &[Ask]) {
        for ask in asks {
            let [nginx, cutover] = self.fetch(ask);
            let of = |what: &str| {
                format!(
                    "{} {:?}: {what}\nnginx: {nginx:?}\ncutover: {cutover:?}\n{}",
                    ask.url,
                    ask.curl,
                    self.nginx.log()
                )
            };
            assert_eq!(nginx.status, cutover.status, "{}", of("status"));
            match ask.same {
                Same::Status => assert_eq!(
                    nginx.field("location"),
                    cutover.field("location"),
                    "{}",
                    of("location")
                ),
                Same::Own => assert_eq!(nginx.body, cutover.body, "{}", of("body")),
                Same::App { but } => {
                    assert_eq!(
                        nginx.compared(),
                        cutover.compared(),
                        "{}",
                        of("fields of the answer")
                    );
                    if ask.curl.contains(&"--head") {
                        continue;
                    }
                    let (left, right) = (nginx.seen(), cutover.seen());
                    for part in ["color", "method", "target", "body"] {
                        assert_eq!(left[part], right[part], "{}", of(part));
                    }
                    let differences = differences(&left["fields"], &right["fields"], but);
                    assert!(
                        differences.is_empty(),
                        "{}",
                        of(&format!("what the app saw: {differences:?}"))
                    );
                }
            }
        }
    }
}

fn differences(nginx: &Value, cutover: &Value, but: &[&str]) -> Vec<String> {
    let fields = |value: &Value| -> BTreeMap<String, String> {
        let all = value.as_object().expect("fields").iter();
        all.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    };
    let (nginx, cutover) = (fields(nginx), fields(cutover));
    let names: BTreeSet<&String> = nginx.keys().chain(cutover.keys()).collect();
    let differ = |name: &&String| {
        let more = MORE.contains(&name.as_str()) && !nginx.contains_key(*name);
        !more
            && **name != "connection"
            && !but.contains(&name.as_str())
            && nginx.get(*name) != cutover.get(*name)
    };
    let named = names.into_iter().filter(differ);
    named
        .map(|name| format!("{name}: {:?} {:?}", nginx.get(name), cutover.get(name)))
        .collect()
}

/// The numbers behind `127.0.0.1:`.
fn ports_in(text: &str) -> Vec<u16> {
    let after = text.split("127.0.0.1:").skip(1);
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    after
        .filter_map(|text| number(text).parse().ok())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn replace(text: &mut String, port: u16, by: u16) {
    *text = text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{by}"));
}

/// What the files name: a certificate, a page, bodies.
fn prepare(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("write");
    let names = vec!["forecaster.example".to_owned(), "ala.example".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    write("site.pem", own.cert.pem().as_bytes());
    write("site.key", own.signing_key.serialize_pem().as_bytes());
    std::fs::create_dir(folder.join("html")).expect("a folder");
    write("html/maintenance.html", b"<h1>We are back soon</h1>\n");
    write("2MiB", &vec![b'x'; 2 << 20]);
    write("11MiB", &vec![b'x'; 11 << 20]);
}

/// An app that tells what it saw.
fn echo(color: &'static str, down: Arc<AtomicBool>) -> Backend {
    Backend::does(move |mut stream| {
        let mut ahead = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut ahead) {
            if down.load(Ordering::SeqCst) || stream.write_all(&tell(color, &seen)).is_err() {
                return;
            }
        }
    })
}

fn tell(color: &str, seen: &Seen) -> Vec<u8> {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &seen.headers {
        let all = fields.entry(name).or_default();
        if !all.is_empty() {
            all.push_str(" | ");
        }
        all.push_str(value);
    }
    let status = seen.path().strip_prefix("/status/").unwrap_or("200");
    let body = json!({
        "color": color,
        "status": "ok",
        "method": seen.method,
        "target": seen.target,
        "body": String::from_utf8_lossy(&seen.body),
        "fields": fields,
    })
    .to_string();
    let host = seen.header("host").unwrap_or_default();
    let more = match seen.path() {
        "/redirect" => format!("Location: http://{host}/login?next=%2F\r\n"),
        "/cookie" => "Set-Cookie: a=1; Domain=127.0.0.1; Path=/\r\nSet-Cookie: b=2; HttpOnly\r\n".to_owned(),
        _ => String::new(),
    };
    let body = if seen.method == "HEAD" {
        String::new()
    } else {
        body
    };
    format!(
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\nX-Powered-By: echo\r\n\
         Cache-Control: no-store\r\nVary: Accept\r\nVary: Origin\r\n{more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<String> {
        self.fields
            .iter()
            .find(|(is, _)| is == name)
            .map(|(_, value)| value.clone())
    }

    fn compared(&self) -> BTreeSet<(String, String)> {
        let all = self
            .fields
            .iter()
            .filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
        all.cloned().collect()
    }

    fn seen(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request by the real curl.
fn curl(folder: &Path, port: u16, ask: &Ask) -> Answer {
    let to = format!("::127.0.0.1:{port}");
    let output = Command::new("curl")
        .current_dir(folder)
        .args([
            "--silent",
            "--show-error",
            "--insecure",
            "--include",
            "--http1.1",
            "--path-as-is",
            "--max-time",
            "20",
        ])
        .args(["--noproxy", "*", "--header", "Expect:", "--connect-to", &to])
        .args(ask.curl)
        .arg(ask.url)
        .output()
        .expect("run curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        panic!(
            "{}: {text:?} {}",
            ask.url,
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Answer {
        status: status.unwrap_or_else(|| panic!("no status: {text:?}")),
        fields: lines.filter_map(field).collect(),
        body: body.to_owned(),
    }
}

/// A real nginx with a file of its own, one process, stopped with this value.
pub struct Nginx {
    child: Child,
    log: std::path::PathBuf,
}

impl Nginx {
    pub fn start(folder: &Path, http: &str, ports: impl Iterator<Item = u16>) -> Self {
        let here = folder.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary
            .iter()
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .collect();
        let log = folder.join("nginx-error.log");
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log {} info;\nevents {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\n{temporary}{http}\n}}\n",
            log.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).expect("write nginx.conf");
        let binary = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let child = Command::new(binary.expect("nginx, from Debian's nginx-light: tests/run installs it"))
            .args(["-e", &log.display().to_string(), "-p"])
            .arg(folder)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start nginx");
        let mut nginx = Self { child, log };
        for port in ports {
            eventually("nginx listens", PATIENCE, || {
                if let Ok(Some(status)) = nginx.child.try_wait() {
                    panic!("nginx ended with {status}\n{}", nginx.log());
                }
                let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
            });
        }
        nginx
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
