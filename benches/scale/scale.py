"""What grows with the configuration, on a real process. Called by run.sh; the method: ../README.md."""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "compare"))
import compare  # noqa: E402  (the path is set above)
import peers  # noqa: E402
import rows  # noqa: E402
import switching  # noqa: E402

ENDPOINTS = 4
RATE = 2000


class Big(peers.Cutover):
    """cutover with many apps. They share eight addresses: an endpoint is one of an app and a color, and probed as such."""

    def __init__(self, tools, apps, services=1, interval="2s"):
        super().__init__(tools)
        self.apps, self.services, self.interval = apps, services, interval

    def command(self):
        return [self.tools.cutover, "run", "-c", str(self.written(self.apps))]

    def written(self, apps):
        fill = self.fill
        text = [f'[server]\nworkers = 1\nstate_dir = "{self.folder}/state"\n[admin]\nsocket = "{self.folder}/admin.sock"']
        text += [f'[log]\naccess = "off"\n[[listener]]\naddress = "127.0.0.1:{self.port}"']
        # The one that load goes to; no host: all that no other app has.
        text += [f'[app.load]\ninitial = "blue"\nblue = ["127.0.0.1:{fill["blue"]}"]\ngreen = ["127.0.0.1:{fill["green"]}"]\nhealth.path = "/"']
        each = 1 if self.services > 1 else ENDPOINTS
        lists = {color: ", ".join(f'"127.0.0.1:{port}"' for port in fill[f"{color}s"][:each]) for color in peers.COLORS}
        for app in range(apps):
            text.append(f'[app.a{app}]\nhosts = ["a{app}.test"]\ninitial = "blue"')
            text.append(f'health = {{ path = "/healthz", interval = "{self.interval}" }}')
            for service in range(self.services):
                prefix = "/" if service == 0 else f"/part{service}"
                text.append(f'service.s{service} = {{ path_prefix = "{prefix}", blue = [{lists["blue"]}], green = [{lists["green"]}] }}')
        path = self.folder / "cutover.toml"
        beside = path.with_suffix(".new")
        beside.write_text("\n".join(text) + "\n")
        os.replace(beside, path)
        return path

    def ask(self, method, path, body=None):
        """One request to the admin API: what it said, and milliseconds."""
        start = time.monotonic()
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(120)
            door.connect(f"{self.folder}/admin.sock")
            api = http.client.HTTPConnection("localhost")
            api.sock = door
            api.request(method, path, json.dumps(body) if body is not None else None, {"content-type": "application/json"})
            answer = api.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return text, (time.monotonic() - start) * 1000


class Many:
    """The backend: what the load goes to, and four addresses a color for all other apps."""

    def __init__(self, tools, core, folder):
        ports = peers.free_ports(2 + 2 * ENDPOINTS)
        self.own, self.blues, self.greens = ports[:2], ports[2 : 2 + ENDPOINTS], ports[2 + ENDPOINTS :]
        self.process = peers.start(core, [tools.backend, "serve", *(f"127.0.0.1:{port}" for port in ports)], folder / "backend.log")
        peers.wait_for(ports[-1], self.process)

    def ports(self):
        return {"blue": self.own[0], "green": self.own[1], "blues": self.blues, "greens": self.greens}

    def probes(self):
        """Counts of each 10 ms since the last call, of all addresses together."""
        sums = []
        for port in self.blues + self.greens:
            api = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            api.request("GET", "/probes")
            counts = [int(line) for line in api.getresponse().read().split()]
            api.close()
            sums += [0] * (len(counts) - len(sums))
            for index, count in enumerate(counts):
                sums[index] += count
        return sums


def main():
    args = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    compare.limit_files(20000)
    cores = sorted(os.sched_getaffinity(0))
    pair = (cores[0], cores[-1])
    os.sched_setaffinity(0, {cores[-1]})
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cutover-scale-"))
    args.cert = args.key = args.pair = args.nginx_buffers = ""
    small, large, routes = (10, 100, 100) if args.smoke else (10, 1000, 1000)
    backend = None
    try:
        pieces = json.loads(subprocess.run([args.pieces], capture_output=True, text=True, check=True).stdout)
        backend = Many(args, pair[1], folder)
        columns = {}
        for name, proxy in (
            (f"{small} apps × 2 × {ENDPOINTS}", Big(args, small)),
            (f"{large} apps × 2 × {ENDPOINTS}", Big(args, large)),
            (f"{routes} apps × 10 services = {routes * 10:,} routes", Big(args, routes, services=10, interval="60s")),
        ):
            try:
                columns[name] = whole(proxy, args, pair, backend, folder)
            except (rows.Failed, RuntimeError, OSError) as error:
                print(f"{name}: FAILED: {error}", file=sys.stderr)
                columns[name] = {}
    finally:
        if backend is not None:
            peers.stop(backend.process)
        shutil.rmtree(folder, ignore_errors=True)
    text = report(pieces, columns, args.smoke)
    print(text)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scale.md").write_text(text + "\n")
    failed = sum(1 for column in columns.values() if not column)
    (out / "scale.json").write_text(json.dumps({"smoke": args.smoke, "pieces": pieces, "processes": columns}, indent=1) + "\n")
    sys.exit(1 if failed else 0)


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    for tool in ("cutover", "backend", "load", "pieces", "out"):
        parser.add_argument(f"--{tool}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


def whole(proxy, args, pair, backend, folder):
    """Every figure of one configuration."""
    seconds = 1 if args.smoke else 4
    begun = time.monotonic()
    proxy.start(pair[0], backend, folder)
    found = {"start to the first answer, s": time.monotonic() - begun - 0.5}
    try:
        start = time.monotonic()
        subprocess.run([args.cutover, "check", "-c", proxy.folder / "cutover.toml"], capture_output=True, check=True)
        found["`cutover check`, s"] = time.monotonic() - start
        found |= probing(proxy, backend, seconds)
        found["RSS, MiB"] = proxy.rss_kib() / 1024
        row = rows.Row("load", "", peers.CLEAR, "load", "/128", ("closed", "--connections", "64"))
        cpu, _, answered = rows.load(row, proxy, args, pair[1], seconds, 0.5)
        found["CPU of a request, probing included, µs"] = cpu * 1e6 / answered["requests"]
        scrapes = [proxy.ask("GET", "/metrics") for _ in range(5)]
        found["a scrape, ms"] = statistics.median(took for _, took in scrapes)
        found["a scrape, KiB"] = len(scrapes[0][0]) / 1024
        found |= operated(proxy)
    finally:
        proxy.stop()
    print(json.dumps(found), file=sys.stderr)
    for what, act in switching.operations(proxy):
        if what != "a step of a rollout":
            one = switching.disturbed(proxy, args, pair, backend, folder, 3 if args.smoke else 8, 0.4, RATE, act)
            found[f"p99 at {RATE:,}/s quiet and during {what}, ms"] = (one["quiet_p99_ms"], one["during_p99_ms"])
    return found


def probing(proxy, backend, seconds):
    """Over whole intervals: how many probes come, what they cost, and how evenly."""
    # The first round of all endpoints is over.
    time.sleep(2 * seconds)
    backend.probes()
    cpu, start = proxy.cpu_seconds(), time.monotonic()
    time.sleep(2 * seconds)
    cpu, took = proxy.cpu_seconds() - cpu, time.monotonic() - start
    counts = backend.probes()
    tenths = [sum(counts[index : index + 10]) for index in range(0, len(counts) - 9, 10)]
    total = sum(counts)
    return {
        "probes a second": total / took,
        "CPU of a probe, µs": cpu * 1e6 / total if total else float("nan"),
        "share of a core, without traffic": cpu / took,
        "most probes in 100 ms, × the mean": max(tenths) / statistics.mean(tenths) if total else float("nan"),
    }


def operated(proxy):
    """Switches and reloads by the admin API: medians and the longest, in ms."""
    switches = []
    for number in range(20):
        app = f"a{number * 7 % proxy.apps}"
        color = "green" if json.loads(proxy.ask("GET", f"/v1/apps/{app}")[0])["active"] == "blue" else "blue"
        switches.append(proxy.ask("POST", f"/v1/apps/{app}/switch", {"to": color})[1])
    same = [proxy.ask("POST", "/v1/reload", {})[1] for _ in range(3)]
    # More and fewer apps, in turn: the file is another each time. The watcher may be first; then there is nothing left to do.
    other = []
    for number in range(4):
        proxy.written(proxy.apps + 1 - number % 2)
        other.append(proxy.ask("POST", "/v1/reload", {})[1])
    return {
        "a switch with its probes and verification, ms (longest)": (statistics.median(switches), max(switches)),
        "a reload without a change, ms": statistics.median(same),
        "a reload with an app more or less, ms (longest)": (statistics.median(other), max(other)),
    }


def report(pieces, columns, smoke):
    text = ["SMOKE RUN OF A DEBUG BUILD: no figure here says anything.", ""] if smoke else []
    few, many = pieces["lookup_10"], pieces["lookup_10000"]
    text += ["| route lookup | ns | × |", "|---|---|---|"]
    text += [f"| 10 routes, 5 hosts | {few:.1f} | 1 |", f"| 10,000 routes, the same 5 hosts | {many:.1f} | {many / few:.2f} |"]
    everywhere = pieces["lookup_10000_all_hosts"]
    text += [f"| 10,000 routes, all 5,000 hosts in turn (the caches' misses are in it) | {everywhere:.1f} | {everywhere / few:.2f} |"]
    few, many = pieces["lookup_10_paths"], pieces["lookup_10000_paths"]
    text += [f"| 10 paths of one host | {few:.1f} | 1 |", f"| 10,000 paths of one host | {many:.1f} | {many / few:.2f} |", ""]
    text += ["| publishing a switch, 2,000 times | p50 µs | p99 µs | longest µs |", "|---|---|---|---|"]
    for name, one in pieces.items():
        if name.startswith("publish"):
            apps, endpoints = name.removeprefix("publish_").split("x")
            for key, what in (("published_us", "the pointer"), ("built_and_published_us", "the app's part built, and published")):
                times = one[key]
                text.append(f"| {apps} apps × {endpoints} endpoints: {what} | {times['p50']:.1f} | {times['p99']:.1f} | {times['max']:.1f} |")
    text += ["", f"| one worker, a real process | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for what in next(iter(columns.values())):
        text.append(f"| {what} | {' | '.join(cell(column.get(what)) for column in columns.values())} |")
    return "\n".join(text)


def cell(value):
    if value is None:
        return "failed"
    if isinstance(value, tuple):
        return f"{value[0]:.1f} ({value[1]:.1f})"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


if __name__ == "__main__":
    main()
