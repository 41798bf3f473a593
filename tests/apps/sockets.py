"""Both ends of the end-to-end WebSocket test, on the `websockets` package.

    COLOR=blue PORT=8001 python sockets.py            an app: every message comes back with the color in front
    python sockets.py count ADDRESS CLIENTS SECONDS   clients that count: one line of JSON for each, at its end
"""

import asyncio
import http
import json
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

COLOR = os.environ.get("COLOR", "none")
LARGE = 16 * 1024 * 1024


async def echo(socket):
    async for message in socket:
        if isinstance(message, bytes):
            await socket.send(message)
        else:
            await socket.send(f"{COLOR} {message}")


def health(connection, request):
    if request.path == "/healthz" or "Upgrade" not in request.headers:
        return connection.respond(http.HTTPStatus.OK, COLOR)
    return None


async def app():
    port = int(os.environ["PORT"])
    async with serve(echo, "127.0.0.1", port, process_request=health, max_size=None) as server:
        await server.serve_forever()


async def count(address, number, seconds):
    """Numbered messages until the time is over or the other side ends it; the first client also sends a large one."""
    said = {"messages": 0, "wrong": 0, "code": None, "colors": [], "at": None}
    begun = time.monotonic()
    options = {"max_size": None, "compression": None if number % 2 else "deflate"}
    async with connect(f"ws://{address}/", **options) as socket:
        print(json.dumps({"open": number}), flush=True)
        try:
            while time.monotonic() - begun < seconds:
                text = f"{number}/{said['messages']} " + "x" * 200
                # Every third in pieces.
                pieces = iter([text[:5], text[5:50], text[50:]])
                await socket.send(pieces if said["messages"] % 3 == 0 else text)
                color, _, rest = (await socket.recv()).partition(" ")
                said["wrong"] += rest != text
                said["messages"] += 1
                if color not in said["colors"]:
                    said["colors"].append(color)
                if number == 0 and said["messages"] == 5:
                    large = os.urandom(1024) * (LARGE // 1024)
                    await socket.send(large)
                    said["wrong"] += await socket.recv() != large
                if said["messages"] % 10 == 0:
                    await (await socket.ping())
                await asyncio.sleep(0.005)
            await socket.close()
        except ConnectionClosed:
            pass
        said["code"], said["at"] = socket.close_code, time.monotonic() - begun
    return said


async def clients(address, number, seconds):
    for said in await asyncio.gather(*(count(address, at, seconds) for at in range(number))):
        print(json.dumps(said), flush=True)


if len(sys.argv) > 1:
    asyncio.run(clients(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
else:
    asyncio.run(app())
