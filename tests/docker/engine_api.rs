//! The part of Docker's Engine API (v1.41) that cutover asks for, on a Unix socket: version, list of containers, stream of events.
//!
//! The answers have the form that an engine 20.10 gave to the same requests, shortened to what its reference documents.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// An engine that can be told what happens in it.
pub struct EngineApi {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Running containers by id.
    containers: BTreeMap<String, Value>,
    /// Who follows the events.
    followers: Vec<UnixStream>,
}

impl EngineApi {
    /// An engine that listens here, without containers.
    pub fn start(path: &Path) -> Self {
        let mut engine = Self {
            path: path.to_owned(),
            state: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        engine.come_back();
        engine
    }

    /// Listen (again).
    pub fn come_back(&mut self) {
        let listener = UnixListener::bind(&self.path).expect("bind the engine's socket");
        self.stop = Arc::default();
        let (state, stop) = (Arc::clone(&self.state), Arc::clone(&self.stop));
        self.thread = Some(std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream, &state));
            }
        }));
    }

    /// The engine ends: no socket, no stream. What runs in containers runs on.
    pub fn go_away(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the engine's thread");
        }
        std::fs::remove_file(&self.path).expect("remove the socket");
        for follower in self.state.lock().unwrap().followers.drain(..) {
            let _ = follower.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Who follows the events now.
    pub fn followers(&self) -> usize {
        self.state.lock().unwrap().followers.len()
    }

    /// A container of a compose service starts at this address.
    pub fn starts(&self, id: &str, project: &str, service: &str, ip: &str) {
        let container = json!({
            "Id": id, "Names": [format!("/{project}_{service}_{id}")], "Image": "shop:1", "ImageID": "sha256:e82bdcd2a131", "Command": "/app",
            "Created": 1_795_871_702, "Ports": [],
            "Labels": {
                "com.docker.compose.container-number": "1", "com.docker.compose.oneoff": "False",
                "com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.version": "1.29.2"
            },
            "State": "running", "Status": "Up Less than a second", "HostConfig": {"NetworkMode": format!("{project}_default")},
            "NetworkSettings": {"Networks": {format!("{project}_default"): {
                "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "237f47b4d223", "EndpointID": "087d48282404",
                "Gateway": "127.0.0.1", "IPAddress": ip, "IPPrefixLen": 8, "IPv6Gateway": "", "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:02", "DriverOpts": null
            }}},
            "Mounts": []
        });
        self.state
            .lock()
            .unwrap()
            .containers
            .insert(id.to_owned(), container);
        self.network("connect", id);
        self.happens("start", id, json!({}));
    }

    /// `docker stop` begins (15), or `docker kill` (9), or `docker kill --signal HUP` (1).
    pub fn is_sent(&self, id: &str, signal: u32) {
        self.happens("kill", id, json!({ "signal": signal.to_string() }));
    }

    /// The container's process is over.
    pub fn dies(&self, id: &str) {
        self.state.lock().unwrap().containers.remove(id);
        self.happens("die", id, json!({ "exitCode": "143" }));
        self.network("disconnect", id);
        self.happens("stop", id, json!({}));
    }

    fn happens(&self, action: &str, id: &str, more: Value) {
        let mut attributes = json!({ "image": "shop:1", "name": id });
        attributes
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.tell(&json!({
            "status": action, "id": id, "from": "shop:1", "Type": "container", "Action": action,
            "Actor": {"ID": id, "Attributes": attributes}, "scope": "local", "time": 1_795_871_703, "timeNano": 1_795_871_703_802_593_637_u64
        }));
    }

    fn network(&self, action: &str, container: &str) {
        self.tell(&json!({
            "Type": "network", "Action": action,
            "Actor": {"ID": "237f47b4d223", "Attributes": {"container": container, "name": "shop_default", "type": "bridge"}},
            "scope": "local", "time": 1_795_871_702, "timeNano": 1_795_871_702_722_313_461_u64
        }));
    }

    fn tell(&self, event: &Value) {
        let line = format!("{event}\n");
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        let mut state = self.state.lock().unwrap();
        state
            .followers
            .retain_mut(|follower| follower.write_all(chunk.as_bytes()).is_ok());
    }
}

impl Drop for EngineApi {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.go_away();
        }
    }
}

/// What the request that comes is for, once its head is whole; `None` if the peer leaves before.
pub fn target_of(stream: impl Read) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut target = String::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) if target.is_empty() => target = line.split(' ').nth(1).unwrap_or_default().to_owned(),
            Ok(_) if line == "\r\n" => return Some(target),
            Ok(_) => {}
        }
    }
}

/// One request a connection.
fn serve(stream: UnixStream, state: &Mutex<State>) {
    let Some(target) = target_of(stream.try_clone().expect("a second handle")) else {
        return;
    };
    let path = target.split('?').next().unwrap_or_default();
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nServer: Docker/20.10.24 (linux)\r\n";
    let mut stream = stream;
    if path.ends_with("/events") {
        let mut state = state.lock().unwrap();
        if stream
            .write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
            .is_ok()
        {
            state.followers.push(stream);
        }
        return;
    }
    let body = if path.ends_with("/version") {
        json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"})
    } else if path.ends_with("/containers/json") {
        Value::Array(state.lock().unwrap().containers.values().cloned().collect())
    } else {
        let body = json!({"message": "page not found"}).to_string();
        let _ = write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        return;
    };
    let body = body.to_string();
    let _ = write!(
        stream,
        "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}
