"""The switch under load, each proxy in its own way; and what operating cutover does to the tail."""

import http.client
import json
import socket
import statistics
import subprocess
import time

from rows import Failed, milliseconds

CONNECTIONS = 32
# The first byte of the answers of /color: the number of the backend's address.
ANSWER = {"blue": "0", "green": "1", "any": "*"}


def switches(proxy, tools, cores, backend, folder, count, pause, rate=None):
    """`count` switches under load, there and back. Closed loop, or at a fixed rate."""
    color = ["blue"]

    def turn():
        color[0] = "green" if color[0] == "blue" else "blue"
        proxy.switch(color[0])
        return color[0]

    return disturbed(proxy, tools, cores, backend, folder, count, pause, rate, turn)


def disturbed(proxy, tools, cores, backend, folder, count, pause, rate, act):
    """Load on a fresh process; `act` is called `count` times, and returns the color that is right from then on."""
    proxy_core, load_core = cores
    proxy.start(proxy_core, backend, folder)
    process = None
    try:
        command = ["taskset", "-c", str(load_core), tools.load, "watch", proxy.url("/color"), "--connections", str(CONNECTIONS), "--warmup", "0.5"]
        command += ["--rate", str(rate)] if rate else []
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if process.stdout.readline() != "begin\n":
            raise Failed(process.communicate(timeout=30)[1].strip())
        marks, commands = [], []
        # As long a silence before as between, so that the quiet tail is known as well.
        for _ in range(count):
            time.sleep(pause)
            start = time.monotonic_ns()
            right = act()
            end = time.monotonic_ns()
            marks.append(f"{start} {end} {ANSWER[right]}")
            commands.append((end - start) / 1e6)
        time.sleep(pause)
        answer, errors = process.communicate("\n".join(marks), timeout=60)
        if process.returncode != 0:
            raise Failed(errors.strip())
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        proxy.stop()
    return {
        "proxy": proxy.name,
        "rate": rate,
        "command_ms": statistics.median(commands),
        "command_max_ms": max(commands),
        **milliseconds(json.loads(answer)),
    }


def operations(cutover):
    """What an operator, a watcher or Prometheus does to a running cutover: name, call."""
    weight = [0]

    def step():
        weight[0] = 10 + (weight[0] + 10) % 50
        cutover.operate("weight", f"green={weight[0]}")
        return "any"

    def reload():
        cutover.operate("reload")
        return "any"

    def scrape():
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(f"{cutover.folder}/admin.sock")
            api = http.client.HTTPConnection("localhost")
            api.sock = door
            api.request("GET", "/metrics")
            answer = api.getresponse()
            text = answer.read()
        if answer.status != 200 or b"cutover_requests_total" not in text:
            raise RuntimeError(f"/metrics: {answer.status}")
        return "any"

    return (("a reload", reload), ("a step of a rollout", step), ("a scrape", scrape))
