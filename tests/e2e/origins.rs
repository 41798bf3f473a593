//! Real servers behind TLS: hypercorn (PyPI) and nginx (Debian), both of which choose HTTP/2 by ALPN.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::apps::tool;
use crate::backend::Backend;
use crate::figures::{alone, say, size};
use crate::judge::Color;
use crate::load::sha256;
use crate::nginx::Nginx;
use crate::ports;
use crate::server::{PATIENCE, Site, eventually};
use crate::wire::{Client, request};

/// An authority, and a certificate for 127.0.0.1 that it has signed: `ca.pem`, `app.pem` and `app.key`.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("write");
    write("ca.pem", issuer.pem());
    write("app.pem", certificate.pem());
    write("app.key", key.serialize_pem());
}

/// The app of `tests/apps` on hypercorn, with `app.pem` of a folder. Stopped with this value.
struct Hypercorn {
    child: Child,
    port: u16,
}

impl Hypercorn {
    fn start(folder: &Path) -> Self {
        let port = ports::free();
        let mut child = Command::new(tool("hypercorn"))
            .args(["--bind", &format!("127.0.0.1:{port}"), "--log-level", "error"])
            .args(["--certfile", "app.pem", "--keyfile", "app.key", "app:asgi"])
            .current_dir(folder)
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("COLOR", "blue")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start hypercorn");
        eventually("hypercorn listens", PATIENCE, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("hypercorn ended with {status}");
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, port }
    }
}

impl Drop for Hypercorn {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let deadline = std::time::Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn hypercorn_and_nginx_over_tls_and_http2() {
    let _machine = alone();
    let site = Site::new("");
    certificates(site.path());
    let blue = Hypercorn::start(site.path());
    let green = Backend::says("green");
    let port = ports::free();
    let (here, behind) = (site.path().display(), green.address);
    let http = format!(
        "server {{\nlisten 127.0.0.1:{port} ssl http2;\nssl_certificate {here}/app.pem;\nssl_certificate_key {here}/app.key;\n\
         client_max_body_size 0;\nlocation / {{\nproxy_pass http://{behind};\nproxy_http_version 1.1;\nadd_header x-http $server_protocol;\n}}\n}}"
    );
    let _nginx = Nginx::start(site.path(), &http, [port].into_iter());
    site.write(&format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"https://127.0.0.1:{}\"]\ngreen = [\"https://127.0.0.1:{port}\"]\n\
         tls.ca = \"ca.pem\"\nhealth.path = \"/healthz\"\n",
        blue.port
    ));
    let server = site.run();

    // Who answers, and over what.
    let speaks = |color: &str| {
        let answer = site.client().get("/version").expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["color"].as_str()),
            (200, Some(color))
        );
        match color {
            "blue" => assert_eq!(answer.json()["http"], "2"),
            _ => assert_eq!(answer.header("x-http"), Some("HTTP/2.0")),
        }
    };
    speaks("blue");
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let body: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let hash = sha256(&body);
    std::thread::scope(|scope| {
        let works: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client: Client<_> = site.client();
                    while !over.load(SeqCst) {
                        let answer = client.get("/x").expect("an answer");
                        assert_eq!(answer.status, 200);
                        let upload = request("POST", "/up", &[], Some(&body));
                        let answer = client.exchange(&upload).expect("an answer");
                        assert_eq!(
                            (answer.status, answer.json()["sha256"].as_str()),
                            (200, Some(&*hash))
                        );
                        done.fetch_add(2, SeqCst);
                    }
                })
            })
            .collect();
        let mut admin = site.admin();
        for at in 0..size(4, 40) {
            let more = done.load(SeqCst) + 20;
            while done.load(SeqCst) < more && !works.iter().any(|work| work.is_finished()) {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let to = if at % 2 == 0 { Color::Green } else { Color::Blue };
            let (status, said) = admin.switch(to).expect("an answer");
            assert_eq!(status, 200, "{said}");
            speaks(to.name());
        }
        over.store(true, SeqCst);
        for work in works {
            work.join().expect("every answer was right");
        }
    });
    // A long download, whole.
    let answer = site.client().get("/stream?kb=4096").expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 4096 * 1024));
    say(&format!(
        "hypercorn and nginx over TLS and HTTP/2: {} requests across {} switches, 0 failed",
        done.load(SeqCst),
        size(4, 40)
    ));
    server.stop();
}
