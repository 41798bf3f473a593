"""Everything at once, for the end-to-end test of that name: both ends.

    COLOR=blue PORT=8001 uvicorn --ws websockets --app-dir tests/apps crowd:asgi    pages, WebSockets, event streams
    COLOR=blue PORT=8002 python crowd.py chat                                       a bidirectional gRPC method
    python crowd.py visit ADDRESS JSON                                              the clients

The clients say `{"open": true}` when every stream is up, go on until standard input ends (or every stream has been
ended for them), and close with one line of JSON: by kind, how many there were, and each one that was not as it must be.
"""

import asyncio
import hashlib
import json
import os
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor

COLOR = os.environ.get("COLOR", "none")
BLOCK = bytes(range(256)) * 256

# What a browser runs: a WebSocket, an event stream and fetches side by side, and an account of them in `seen`.
PAGE = b"""<!doctype html><title>crowd</title><script>
const seen = window.seen = {messages: 0, events: 0, fetches: 0, wrong: [], protocols: [], colors: {socket: [], events: [], fetch: []}};
const color = (kind, name) => { if (!seen.colors[kind].includes(name)) seen.colors[kind].push(name); };
const socket = new WebSocket(`wss://${location.host}/socket`);
const say = () => socket.send(`m${seen.messages}`);
socket.onopen = say;
socket.onmessage = (event) => {
  const [name, text] = event.data.split(' ');
  if (text !== `m${seen.messages}`) seen.wrong.push(`socket: ${event.data}`);
  seen.messages += 1; color('socket', name); setTimeout(say, 20);
};
socket.onclose = (event) => seen.wrong.push(`socket closed: ${event.code}`);
const events = new EventSource('/events');
events.onmessage = (event) => {
  if (Number(event.lastEventId) !== seen.events) seen.wrong.push(`event ${event.lastEventId}, not ${seen.events}`);
  seen.events += 1; color('events', event.data);
};
events.onerror = () => seen.wrong.push('the event stream broke');
const ask = async () => {
  try {
    const path = `/f${seen.fetches}`;
    const answer = await fetch(path, {method: 'POST', body: path, cache: 'no-store'});
    const said = await answer.json();
    if (answer.status !== 200 || said.path !== path) seen.wrong.push(`${path}: ${answer.status} ${JSON.stringify(said)}`);
    seen.fetches += 1; color('fetch', said.color);
  } catch (error) { seen.wrong.push(`fetch: ${error}`); }
  for (const entry of performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')))
    if (entry.nextHopProtocol && !seen.protocols.includes(entry.nextHopProtocol)) seen.protocols.push(entry.nextHopProtocol);
  performance.clearResourceTimings();
  setTimeout(ask, 10);
};
ask();
</script>"""


# --- the app --------------------------------------------------------------------------------------------------------


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http" and scope["path"] == "/events":
        await events(receive, send)
    elif scope["type"] == "http" and scope["path"] == "/page":
        fields = [(b"content-type", b"text/html"), (b"content-length", str(len(PAGE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": PAGE})
    elif scope["type"] == "http" and scope["path"] == "/download":
        await download(scope, send)
    else:
        import app

        await app.asgi(scope, receive, send)


async def echo(receive, send):
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.disconnect":
            return
        else:
            await send({"type": "websocket.send", "text": f"{COLOR} {message['text']}"})


async def events(receive, send):
    """Numbered events, twenty a second, until the reader goes."""
    fields = [(b"content-type", b"text/event-stream"), (b"x-app-color", COLOR.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    gone = asyncio.ensure_future(left(receive))
    number = 0
    while not gone.done():
        text = f"id: {number}\ndata: {COLOR}\n\n"
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        number += 1
        await asyncio.wait([gone], timeout=0.05)


async def left(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def download(scope, send):
    count = int(scope["query_string"].decode().partition("blocks=")[2])
    size = str(count * len(BLOCK)).encode()
    fields = [(b"content-length", size), (b"x-app-color", COLOR.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for left in range(count, 0, -1):
        await send({"type": "http.response.body", "body": BLOCK, "more_body": left > 1})


async def chat():
    """One gRPC method on grpcio, without generated code: what comes goes back with the color in front."""
    import grpc

    async def talk(messages, _context):
        async for message in messages:
            yield COLOR.encode() + b" " + message

    async def check(_message, _context):
        return b"\x08\x01"  # grpc.health.v1: SERVING

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("crowd.Chat", {"Talk": grpc.stream_stream_rpc_method_handler(talk)}),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}),
    ))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    await server.start()
    await server.wait_for_termination()


# --- the clients ----------------------------------------------------------------------------------------------------


class Visit:
    """What all clients of a run share."""

    def __init__(self, address, wanted):
        self.address, self.wanted = address, wanted
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.over = asyncio.Event()
        self.begun = time.monotonic()
        self.open = 0
        self.said = {}

    def opened(self):
        self.open += 1
        if self.open == sum(self.wanted.get(kind, 0) for kind in ("sockets", "chats", "readers")):
            print(json.dumps({"open": True}), flush=True)

    def tell(self, kind, end, count, wrong):
        """`end`: `done`, or how it was ended by the other side."""
        said = self.said.setdefault(kind, {"streams": 0, "messages": 0, "ends": {}, "wrong": [], "last": 0.0})
        said["streams"] += 1
        said["messages"] += count
        said["ends"][end] = said["ends"].get(end, 0) + 1
        said["last"] = max(said["last"], time.monotonic() - self.begun)
        if wrong and len(said["wrong"]) < 5:
            said["wrong"].append(wrong)


async def socket(visit, number):
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    count, wrong, first = 0, "", None
    try:
        async with connect(f"ws://{visit.address}/socket", open_timeout=60, ping_timeout=60) as ws:
            while not visit.over.is_set():
                text = f"{number}/{count} " + "x" * 100
                await ws.send(text)
                color, _, rest = (await ws.recv()).partition(" ")
                first = first or color
                if rest != text or color != first:
                    wrong = f"sent {text[:20]!r}, got {color!r} {rest[:20]!r}"
                count += 1
                if count == 1:
                    visit.opened()
                await asyncio.sleep(0.05)
            await ws.close()
            end = "done" if ws.close_code == 1000 else str(ws.close_code)
    except ConnectionClosed:
        end = str(ws.close_code)
    except OSError as error:
        end = repr(error)
    visit.tell("sockets", end, count, wrong)


async def talker(visit, number):
    loop = asyncio.get_running_loop()
    opened = lambda: loop.call_soon_threadsafe(visit.opened)  # noqa: E731
    visit.tell("chats", *await loop.run_in_executor(None, talk_with, visit, number, opened))


def talk_with(visit, number, opened):
    """A call on a thread of its own. grpcio's asyncio calls put INTERNAL of their own in place of the status that came
    when a message could not be written any more; these do not."""
    import grpc

    count, wrong, end, first = 0, "", "done", None
    asks = queue.SimpleQueue()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(visit.address, options=options) as channel:
        answers = channel.stream_stream("/crowd.Chat/Talk")(iter(asks.get, None))
        try:
            while not visit.over.is_set():
                text = f"{number}/{count}".encode()
                asks.put(text)
                answer = next(answers)
                color, _, rest = answer.partition(b" ")
                first = first or color
                if rest != text or color != first:
                    wrong = f"sent {text!r}, got {answer!r}"
                count += 1
                if count == 1:
                    opened()
                time.sleep(0.05)
            asks.put(None)
            if more := list(answers):
                wrong = f"more than was asked for: {more!r}"
            if answers.code() != grpc.StatusCode.OK:
                end = answers.code().name
        except (grpc.RpcError, StopIteration):
            asks.put(None)
            end = answers.code().name
            if end != "UNAVAILABLE":
                wrong = answers.details()
    return end, count, wrong


async def reader(visit, _number):
    """An event stream, read by hand: the numbers must follow each other, and its end must be a last chunk."""
    count, wrong, first, ended = 0, "", None, False
    source, sink = await asyncio.open_connection(visit.host, visit.port)
    sink.write(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
    head = await source.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        wrong = head.decode()
    pending = b""
    over = asyncio.ensure_future(visit.over.wait())
    end = "done"
    while not over.done():
        line = asyncio.ensure_future(source.readline())
        await asyncio.wait([line, over], return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            line.cancel()
            break
        size = line.result()
        if not size.endswith(b"\n"):
            end = "cut"
            break
        data = await source.readexactly(int(size, 16) + 2)
        if data == b"\r\n":
            end, ended = "last chunk", True
            break
        pending += data[:-2]
        while b"\n\n" in pending:
            event, _, pending = pending.partition(b"\n\n")
            fields = dict(field.split(b": ", 1) for field in event.split(b"\n"))
            first = first or fields[b"data"]
            if int(fields[b"id"]) != count or fields[b"data"] != first:
                wrong = f"event {count}: {event!r}"
            count += 1
            if count == 1:
                visit.opened()
    if ended and pending:
        wrong = f"half an event at the end: {pending!r}"
    over.cancel()
    sink.close()
    visit.tell("readers", end, count, wrong)


async def upload(visit, number):
    blocks = visit.wanted["blocks"]
    digest = hashlib.sha256()
    source, sink = await asyncio.open_connection(visit.host, visit.port)
    size = blocks * len(BLOCK)
    sink.write(f"POST /up/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(blocks):
        sink.write(BLOCK)
        digest.update(BLOCK)
        await sink.drain()
    status, body = await whole(source)
    said = json.loads(body or b"{}")
    right = status == 200 and said.get("length") == size and said.get("sha256") == digest.hexdigest()
    sink.close()
    visit.tell("uploads", "done" if right else f"status {status}", size, "" if right else body[:200].decode())


async def fetch(visit, _number):
    blocks = visit.wanted["blocks"]
    source, sink = await asyncio.open_connection(visit.host, visit.port)
    sink.write(f"GET /download?blocks={blocks} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await source.readuntil(b"\r\n\r\n")
    count, wrong = 0, ""
    try:
        for _ in range(blocks):
            block = await source.readexactly(len(BLOCK))
            count += len(block)
            if block != BLOCK:
                wrong = f"wrong bytes in block {count // len(BLOCK)}"
    except asyncio.IncompleteReadError as cut:
        wrong = f"cut after {count + len(cut.partial)} bytes"
    sink.close()
    visit.tell("downloads", "done" if count == blocks * len(BLOCK) else "cut", count, wrong)


async def whole(source):
    head = (await source.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length"))
    return int(head.split()[1]), await source.readexactly(length)


async def multiplexed(visit, number):
    """One HTTP/2 connection by prior knowledge (the `h2` package), always `streams` requests on it."""
    import h2.config
    import h2.connection
    import h2.events

    source, sink = await asyncio.open_connection(visit.host, visit.port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    running, count, wrong, serial, end = {}, 0, "", 0, "done"

    def ask():
        nonlocal serial
        stream, path = connection.get_next_available_stream_id(), f"/h{number}/{serial}"
        serial += 1
        fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "test")]
        connection.send_headers(stream, fields, end_stream=True)
        running[stream] = [path, None, b""]

    while running or not visit.over.is_set():
        while len(running) < visit.wanted["streams"] and not visit.over.is_set() and end == "done":
            ask()
        sink.write(connection.data_to_send())
        data = await source.read(65536)
        if not data:
            end = "closed"
            break
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                running[event.stream_id][1] = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                running[event.stream_id][2] += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                path, status, body = running.pop(event.stream_id)
                count += 1
                if status != "200" or json.loads(body)["path"] != path:
                    wrong = f"{path}: {status} {body[:100]!r}"
            elif isinstance(event, h2.events.StreamReset):
                path = running.pop(event.stream_id)[0]
                wrong = f"{path}: reset with {event.error_code}"
            elif isinstance(event, h2.events.ConnectionTerminated):
                end = f"GOAWAY {event.error_code}"
    sink.close()
    visit.tell("h2", end if not running else f"{end} with {len(running)} unanswered", count, wrong)


KINDS = {
    "sockets": socket,
    "chats": talker,
    "readers": reader,
    "uploads": upload,
    "downloads": fetch,
    "h2": multiplexed,
}


async def visitors(address, wanted):
    visit = Visit(address, wanted)
    # A thread for each call, and one for standard input.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(wanted.get("chats", 0) + 1))
    tasks = [
        asyncio.ensure_future(client(visit, at)) for kind, client in KINDS.items() for at in range(wanted.get(kind, 0))
    ]
    everyone = asyncio.gather(*tasks)
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([everyone, told], return_when=asyncio.FIRST_COMPLETED)
    visit.over.set()
    await everyone
    print(json.dumps(visit.said), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "chat":
        asyncio.run(chat())
    else:
        asyncio.run(visitors(sys.argv[2], json.loads(sys.argv[3])))
        sys.stdout.flush()
        os._exit(0)  # the thread that reads standard input need not hold us up
