"""A headless Chromium that opens a page through the proxy, for the end-to-end test of that name.

    python browser.py https://127.0.0.1:8443/page

Driven over the DevTools protocol with the `websockets` package. Says `{"open": true}` when the page has its WebSocket
and its event stream, goes on until standard input ends, and closes with one line of JSON: what the page saw.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from websockets.asyncio.client import connect

# No network but loopback, no sandbox as root, nothing in the background; the test's own certificate is not in any store.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--ignore-certificate-errors", "--remote-debugging-port=0",
    "--disable-dev-shm-usage",
]
PATIENCE = 60


async def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (found := await look()) is not None:
            return found
        await asyncio.sleep(0.05)
    raise SystemExit(f"not within {PATIENCE} s: {what}")


async def main(url):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A session of its own: its helpers end with it.
        browser = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        try:
            await visit(url, f"{folder}/DevToolsActivePort")
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


async def visit(url, port_file):
    async def port():
        try:
            with open(port_file) as file:
                lines = file.read().split("\n")
            return lines if len(lines) == 2 else None
        except FileNotFoundError:
            return None

    number, path = await until("DevTools listens", port)
    async with connect(f"ws://127.0.0.1:{number}{path}", max_size=None) as tools:
        calls = iter(range(1, 1_000_000))

        async def call(method, session=None, **params):
            at = next(calls)
            await tools.send(json.dumps({"id": at, "method": method, "params": params} | ({"sessionId": session} if session else {})))
            while (said := json.loads(await tools.recv())).get("id") != at:
                pass
            if "error" in said:
                raise SystemExit(f"{method}: {said['error']}")
            return said["result"]

        target = (await call("Target.createTarget", url=url))["targetId"]
        session = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]

        async def state():
            result = await call("Runtime.evaluate", session, expression="JSON.stringify(window.seen || null)")
            return json.loads(result["result"].get("value") or "null")

        async def up():
            seen = await state()
            return seen if seen and seen["messages"] and seen["events"] and seen["fetches"] else None

        await until("the page has its streams", up)
        print(json.dumps({"open": True}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps(await state()), flush=True)


asyncio.run(main(sys.argv[1]))
sys.stdout.flush()
os._exit(0)  # the thread that reads standard input need not hold us up
