"""Stand-in for the apps of the examples: it answers as they do where a deployment looks, and echoes everything else.

    COLOR=blue PORT=8000 REVISION=v1 python3 standin.py nocturna|forecaster|ala-api|ala-frontend|vcci|mina

The name of the revision says how it behaves: `…-sick` never becomes healthy, `…-broken` is healthy and wrong,
`…-rots` passes every check and then fails its users.
With TLS_CERT and TLS_KEY it speaks TLS. With OWN_NAME it wants to be asked for under that name, in SNI and Host, as hosted apps do.
Python's standard library only.
"""

import hashlib
import json
import os
import signal
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SYSTEM = sys.argv[1] if len(sys.argv) > 1 else "nocturna"
COLOR = os.environ.get("COLOR", "none")
REVISION = os.environ.get("REVISION", "dev")
STARTED = time.monotonic()
START_PERIOD = float(os.environ.get("START_PERIOD", "0"))  # models load
OWN_NAME = os.environ.get("OWN_NAME")
SICK, BROKEN, ROTS = (REVISION.endswith(end) for end in ("-sick", "-broken", "-rots"))


def health():
    if SICK or time.monotonic() - STARTED < START_PERIOD:
        return 503, {"status": "starting", "database": "connection refused"}
    return 200, {"status": "ok", "database": "connected"}


def known(method, path, body):
    """Status and JSON (or HTML) of the paths that a deployment asks for; None for all others."""
    if path in ("/health", "/healthz", "/ready", "/api/health", "/health/live", "/health/ready"):
        return health()
    if (method, path) == ("POST", "/v1/calculate/natal"):
        ok = "latitude" in json.loads(body or b"{}") and not BROKEN
        return (200, {"ok": True, "planets": 10}) if ok else (500, {"error": "ephemeris not found"})
    if path == "/api/v1/health":
        return (500, {"models": 0}) if BROKEN else (200, {"models": 3})
    if (method, path) == ("POST", "/api/auth/request-code"):
        return 200, {"code": "4711"}
    if (method, path) == ("POST", "/api/auth/verify"):
        right = json.loads(body or b"{}").get("code") == "4711" and not BROKEN
        return (200, {"ok": True, "user": "probe"}) if right else (401, {"ok": False})
    if SYSTEM == "vcci" and path == "/v1/items":
        return (500, {"error": "relation items does not exist"}) if BROKEN else (200, {"items": [1, 2, 3]})
    if SYSTEM == "mina" and (method, path) == ("POST", "/api/session"):
        return 200, {"token": "s-4711"}
    if SYSTEM == "ala-frontend" and path == "/":
        return 200, "<!doctype html><title>ala</title>"
    return None


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def read_body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def setup(self):
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def judge(self, path, body):
        if OWN_NAME and self.headers.get("host", "").split(":")[0] != OWN_NAME:
            return 421, {"error": f"no app is called {self.headers.get('host')}"}
        if SYSTEM == "mina" and path == "/api/me":
            right = self.headers.get("authorization") == "Bearer s-4711" and not BROKEN
            return (200, {"user": "probe"}) if right else (401, {"user": None})
        return known(self.command, path, body) or (200, None)

    def answer(self):
        body = self.read_body()
        path = self.path.split("?")[0]
        status, said = self.judge(path, body)
        if said is None:
            said = {
                "color": COLOR, "revision": REVISION, "service": SYSTEM, "method": self.command, "path": path,
                "length": len(body), "sha256": hashlib.sha256(body).hexdigest(),
            }
            if ROTS:
                status = 500
        html = isinstance(said, str)
        payload = said.encode() if html else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if html else "application/json")
        self.send_header("content-length", str(len(payload)))
        self.send_header("x-app-color", COLOR)
        self.send_header("access-control-allow-origin", "*")
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def log_message(self, *args):
        pass


print(f"{SYSTEM} {COLOR} {REVISION} listens", flush=True)
if SICK:
    print("ERROR: could not connect to the database", flush=True)


def only_own_name(_socket, name, _context):
    return None if name == OWN_NAME else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    tls = None

    def get_request(self):
        stream, address = super().get_request()
        if self.tls:  # the handshake is the connection's own thread's: one slow client stops nobody
            stream = self.tls.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
        return stream, address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ssl.SSLError, ConnectionError)):  # clients may leave
            super().handle_error(request, client_address)


if "TLS_CERT" in os.environ:
    Server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Server.tls.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    if OWN_NAME:
        Server.tls.sni_callback = only_own_name


# Process 1 of a container gets no signal that it has not asked for.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server((os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))), App).serve_forever()
