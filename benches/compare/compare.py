"""Runs the proxies in turn on the same backend and prints what each costs. Called by run.sh; the method: ../README.md."""

import argparse
import os
import pathlib
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import peers
import report
import rows
import switching
from rows import Failed

PARTS = ("rows", "rate", "idle", "switch", "operations")


def main():
    args = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    limit_files(20000)
    cores = sorted(os.sched_getaffinity(0))
    # On one core everything shares it, and the figures say so.
    proxy_core, load_core = cores[0], cores[-1]
    # What operators run beside the proxy must not take its core.
    os.sched_setaffinity(0, {load_core})
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cutover-compare-"))
    args.cert, args.key, args.pair = rows.make_certificate(folder)
    args.message = str(folder / "message")
    pathlib.Path(args.message).write_bytes(rows.MESSAGE)
    run = Run(args, (proxy_core, load_core), folder)
    start = time.monotonic()
    try:
        for part in args.parts:
            getattr(run, part)()
    finally:
        run.stop()
        shutil.rmtree(folder, ignore_errors=True)
    facts = describe(args, cores, proxy_core, load_core, run.versions, time.monotonic() - start)
    text, written = report.write(run.results, facts, pathlib.Path(args.out), args.smoke)
    print(text)
    print(f"\nwritten: {', '.join(written)}", file=sys.stderr)
    print(f"{run.results.count()} measurements, {run.failed} failed", file=sys.stderr)
    sys.exit(1 if run.failed or run.results.count() == 0 else 0)


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description="cutover beside its peers, in one run.")
    for tool in ("cutover", "backend", "load", "out"):
        parser.add_argument(f"--{tool}", required=True, help=argparse.SUPPRESS)
    for tool in ("envoy", "pingora"):
        parser.add_argument(f"--{tool}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--warmup", type=float, default=0.4, help="seconds before each")
    parser.add_argument("--rows", default="", help=f"of {','.join(row.name for row in rows.ROWS)}; default: all")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--only", default="", help=f"of {','.join(peer.name for peer in peers.ALL)}; default: all")
    parser.add_argument("--rate", type=int, default=0, help="of the rate part; default: 70 %% of the slowest proxy's requests/s")
    parser.add_argument("--idle", type=int, default=4000, help="idle connections")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds until idle memory is read")
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--nginx-buffers", default="8 32k", help="its proxy_buffers")
    parser.add_argument("--quick", action="store_true", help="one round of a second each: rough figures in three minutes")
    parser.add_argument("--smoke", action="store_true", help="does it work at all? The debug build, no figures")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.warmup, args.idle, args.switches, args.settle = 1, 1.0, 0.3, 1000, 5, 2.0
    if args.smoke:
        args.rounds, args.seconds, args.warmup, args.idle, args.switches, args.settle = 1, 0.3, 0.1, 50, 2, 0.2
        args.only, args.rate = args.only or "nginx,cutover", 200
    args.parts = chosen("--parts", args.parts, PARTS)
    args.rows = chosen("--rows", args.rows or ",".join(row.name for row in rows.ROWS), [row.name for row in rows.ROWS])
    args.only = chosen("--only", args.only or ",".join(peer.name for peer in peers.ALL), [peer.name for peer in peers.ALL])
    return args


def chosen(option, text, known):
    names = text.split(",")
    for name in names:
        if name not in known:
            sys.exit(f"{option}: no {name}; there are {', '.join(known)}")
    return names


class Run:
    def __init__(self, args, cores, folder):
        self.args, self.cores, self.folder = args, cores, folder
        self.results, self.failed, self.versions, self.running = report.Results(), 0, {}, []
        self.backend = peers.Backend(args, cores[1], folder)
        self.proxies, self.rps = [], {}
        for peer in peers.ALL:
            if peer.name not in args.only:
                continue
            proxy = peer(args)
            try:
                self.versions[proxy.name] = proxy.version()
                self.proxies.append(proxy)
            except peers.Missing as missing:
                self.versions[proxy.name] = f"{proxy.name}: {missing}"
                for what in [*args.rows, "idle", "switch"]:
                    self.results.missing[what, proxy.name] = str(missing)

    def start(self):
        """All run at once; those that wait for their turn cost nothing but memory."""
        if not self.running:
            for proxy in self.proxies:
                if self.attempt("start", proxy.name, lambda proxy=proxy: proxy.start(self.cores[0], self.backend, self.folder) or True):
                    self.running.append(proxy)

    def stop_proxies(self):
        for proxy in self.running:
            proxy.stop()
        self.running.clear()

    def stop(self):
        for proxy in self.proxies:
            proxy.stop()
        peers.stop(self.backend.process)

    def turns(self, number):
        """Another first one each round: whoever runs first on a cold cache shall not always be the same."""
        turn = number % max(len(self.running), 1)
        return self.running[turn:] + self.running[:turn]

    def attempt(self, what, name, measure):
        try:
            return measure()
        except (Failed, RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.results.missing[what, name] = " ".join(str(error).split())[:200]
            # A peer that cannot do its row is told in the table; cutover must do them all.
            self.failed += name == "cutover"
            print(f"{what} {name}: FAILED: {error}", file=sys.stderr)
            return None

    def rows(self):
        self.start()
        for number in range(self.args.rounds):
            for row in rows.ROWS:
                for proxy in self.turns(number) if row.name in self.args.rows else ():
                    if row.needs in proxy.can:
                        self.row(number, row, proxy)
                    else:
                        self.results.missing[row.name, proxy.name] = "not part of this setup"

    def row(self, number, row, proxy):
        args = self.args
        one = self.attempt(row.name, proxy.name, lambda: rows.measure(row, proxy, args, self.cores[1], args.seconds, args.warmup))
        if one:
            self.results.rounds.append(one)
            if row.name == "128":
                self.rps.setdefault(proxy.name, []).append(one["rps"])
            shown = f"round {number + 1} {row.name:11} {proxy.name:8} {one['cpu_us']:9.2f} µs {one['rps']:9.0f} rps {one['cpu_share']:5.0%} of its core"
            print(shown, file=sys.stderr)

    def fixed_rate(self):
        if not self.args.rate:
            capacities = [statistics.median(them) for name, them in self.rps.items() if name != "relay"]
            self.args.rate = int(0.7 * min(capacities)) // 100 * 100 if capacities else 10000
        return self.args.rate

    def rate(self):
        self.start()
        args, rate = self.args, self.fixed_rate()
        for number in range(args.rounds):
            for proxy in self.turns(number):
                one = self.attempt("rate", proxy.name, lambda proxy=proxy: rows.at_rate(rate, proxy, args, self.cores[1], args.seconds, args.warmup))
                if one:
                    self.results.rates.append(one)
                    print(f"round {number + 1} {rate}/s {proxy.name:8} p50 {one['p50_ms']:.2f} p99 {one['p99_ms']:.2f} p99.9 {one['p999_ms']:.2f} ms", file=sys.stderr)

    def idle(self):
        self.stop_proxies()
        args = self.args
        for proxy in self.proxies:
            for tls in (False, True):
                if (peers.TLS if tls else peers.CLEAR) not in proxy.can:
                    continue
                what = f"idle{' with TLS' if tls else ''}"
                one = self.attempt(what, proxy.name, lambda proxy=proxy, tls=tls: rows.idle(proxy, args, self.cores, self.backend, self.folder, args.idle, tls, args.settle))
                if one:
                    self.results.idle.append(one)
                    print(f"{what} {proxy.name:8} {one['kib']:.2f} KiB", file=sys.stderr)

    def switch(self):
        self.stop_proxies()
        args = self.args
        for proxy in self.proxies:
            for rate in (None, self.fixed_rate()) if peers.SWITCH in proxy.can else ():
                one = self.attempt("switch", proxy.name, lambda proxy=proxy, rate=rate: switching.switches(proxy, args, self.cores, self.backend, self.folder, args.switches, 0.3, rate))
                if one:
                    self.results.switches.append(one)
                    print(f"switch {proxy.name:8} {one['failed']} failed, {one['late']} late of {one['requests']}", file=sys.stderr)

    def operations(self):
        self.stop_proxies()
        args = self.args
        for cutover in self.proxies:
            for what, act in switching.operations(cutover) if cutover.name == "cutover" else ():
                one = self.attempt(what, "cutover", lambda act=act: switching.disturbed(cutover, args, self.cores, self.backend, self.folder, args.switches, 0.3, self.fixed_rate(), act))
                if one:
                    self.results.operations.append({"what": what, **one})
                    print(f"{what}: p99 {one['quiet_p99_ms']:.2f} quiet, {one['during_p99_ms']:.2f} ms during", file=sys.stderr)


def describe(args, cores, proxy_core, load_core, versions, took):
    def first(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    return {
        "machine": f"{len(cores)} cores, {cpu_model()}, Linux {platform.release()}",
        "pinned": f"the proxy, one worker, to core {proxy_core}; load and backend to core {load_core}",
        "rounds": f"{args.rounds} of {args.seconds:g} s each, interleaved; {took / 60:.1f} minutes in all",
        "load average at the end": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "load": f"{first('wrk', '-v').split(' [')[0]}; {first('h2load', '--version')}; bench_load (of this project)",
        "versions": versions,
    }


def limit_files(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
