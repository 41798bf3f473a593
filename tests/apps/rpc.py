"""Both ends of the end-to-end gRPC tests, on the `grpcio` package. Messages are plain bytes: no generated code.

    COLOR=blue PORT=50051 python rpc.py          an app; says `ready` when it listens
    python rpc.py check ADDRESS                  one call of each kind, judged; one line of JSON
    python rpc.py chat ADDRESS STREAMS SECONDS   bidirectional streams that count; one line of JSON for each, at its end
"""

import asyncio
import concurrent.futures
import json
import os
import queue
import sys
import time

import grpc

COLOR = os.environ.get("COLOR", "none").encode()
SERVICE = "cutover.Guide"


class Guide:
    async def hello(self, request, context):
        await context.send_initial_metadata((("x-color", COLOR.decode()),))
        context.set_trailing_metadata((("x-sum", str(len(request))),))
        return COLOR + b" " + request

    async def features(self, request, context):
        for number in range(int(request)):
            yield b"%s %d" % (COLOR, number)

    async def record(self, requests, context):
        count = size = 0
        async for request in requests:
            count += 1
            size += len(request)
        return b"%s %d %d" % (COLOR, count, size)

    async def chat(self, requests, context):
        async for request in requests:
            yield COLOR + b" " + request

    async def fail(self, request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing h\u00e9re, 100 %")

    async def slow(self, request, context):
        await asyncio.sleep(60)
        return b""


async def serving(request, context):
    # HealthCheckResponse { status: SERVING }
    return b"\x08\x01"


async def app():
    guide = Guide()
    unary = grpc.unary_unary_rpc_method_handler
    methods = {
        "Hello": unary(guide.hello),
        "Features": grpc.unary_stream_rpc_method_handler(guide.features),
        "Record": grpc.stream_unary_rpc_method_handler(guide.record),
        "Chat": grpc.stream_stream_rpc_method_handler(guide.chat),
        "Fail": unary(guide.fail),
        "Slow": unary(guide.slow),
    }
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": unary(serving)}),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def channel(address):
    # No retries of the client's own: what it sees is what the proxy did.
    options = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1))
    return grpc.aio.insecure_channel(address, options=options)


async def failure(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return [error.code().name, error.details()]
    return ["OK", None]


async def check(address):
    said = {}
    async with channel(address) as to:
        path = f"/{SERVICE}/"
        call = to.unary_unary(path + "Hello")(b"world")
        said["hello"] = (await call).decode()
        said["initial"] = dict(await call.initial_metadata()).get("x-color")
        said["trailing"] = dict(await call.trailing_metadata()).get("x-sum")
        large = os.urandom(1024) * 3000
        answer = await to.unary_unary(path + "Hello")(large)
        said["large"] = answer.endswith(large)
        said["features"] = [part.decode() async for part in to.unary_stream(path + "Features")(b"5")]

        async def numbers():
            for number in range(100):
                yield b"x" * number

        said["record"] = (await to.stream_unary(path + "Record")(numbers())).decode()
        chat = to.stream_stream(path + "Chat")()
        said["chat"] = []
        for text in (b"one", b"two", b"three"):
            # In lockstep: each answer comes before the next question is asked.
            await chat.write(text)
            said["chat"].append((await chat.read()).decode())
        await chat.done_writing()
        said["chat_end"] = (await chat.code()).name
        said["fail"] = await failure(to.unary_unary(path + "Fail")(b""))
        said["deadline"] = await failure(to.unary_unary(path + "Slow")(b"", timeout=0.5))
        said["unknown"] = await failure(to.unary_unary(path + "Nothing")(b""))
    return said


def chat(address, number, seconds):
    """Numbered messages until the time is over or the other side ends it.

    On a thread of its own: grpcio's asyncio calls put INTERNAL of their own in place of the status that came when a
    message could not be written any more; these do not."""
    said = {"messages": 0, "wrong": 0, "colors": [], "code": None, "details": None, "at": None}
    begun = time.monotonic()
    asks = queue.SimpleQueue()
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(address, options=options) as to:
        answers = to.stream_stream(f"/{SERVICE}/Chat")(iter(asks.get, None))
        try:
            asks.put(b"open")
            next(answers)
            print(json.dumps({"open": number}) + "\n", end="", flush=True)
            while time.monotonic() - begun < seconds:
                text = b"%d/%d " % (number, said["messages"]) + b"x" * 200
                asks.put(text)
                color, _, rest = next(answers).partition(b" ")
                said["wrong"] += rest != text
                said["messages"] += 1
                if color.decode() not in said["colors"]:
                    said["colors"].append(color.decode())
                time.sleep(0.005)
            asks.put(None)
            said["wrong"] += len(list(answers))
        except (grpc.RpcError, StopIteration):
            asks.put(None)
        said["code"], said["details"] = answers.code().name, answers.details()
        said["at"] = time.monotonic() - begun
    return said


def chats(address, number, seconds):
    with concurrent.futures.ThreadPoolExecutor(number) as threads:
        for said in list(threads.map(lambda at: chat(address, at, seconds), range(number))):
            print(json.dumps(said), flush=True)


if len(sys.argv) == 1:
    asyncio.run(app())
elif sys.argv[1] == "check":
    print(json.dumps(asyncio.run(check(sys.argv[2]))), flush=True)
else:
    chats(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
