//! A minimal proxy on Pingora, as its documentation builds one: `pingora-peer LISTEN UPSTREAM`.
//!
//! One worker thread, keep-alive on both sides, the forwarded headers that the other peers set, no log.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Proxy {
    upstream: String,
    ids: AtomicU64,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&*self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            let client = client.ip().to_string();
            request.insert_header("x-forwarded-for", client.as_str())?;
            request.insert_header("x-real-ip", client)?;
        }
        if let Some(host) = request.headers.get("host").cloned() {
            request.insert_header("x-forwarded-host", host)?;
        }
        request.insert_header("x-forwarded-proto", "http")?;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        request.insert_header("x-request-id", format!("{id:032x}"))?;
        Ok(())
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--version"] {
        println!("pingora {}", env!("PINGORA_VERSION"));
        return;
    }
    let [listen, upstream] = args.as_slice() else {
        eprintln!("usage: pingora-peer LISTEN UPSTREAM");
        std::process::exit(2);
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 256,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Proxy {
        upstream: upstream.clone(),
        ids: AtomicU64::new(1),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
