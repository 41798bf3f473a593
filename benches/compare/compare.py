"""Runs the proxies in turn on the same backend and prints what each costs. Called by run.sh."""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SIZES = {"128": "/128", "16k": "/16k", "256k": "/256k"}
PEERS = ("nginx", "haproxy")
CONNECTIONS = 64
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    args = arguments()
    if args.smoke:
        args.rounds, args.seconds, args.sizes, args.warmup = 1, 1.0, "128", 0.2
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    cores = sorted(os.sched_getaffinity(0))
    # On one core everything shares it, and the figures say so.
    proxy_core, load_core = cores[0], cores[-1]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cutover-compare-"))
    running = []
    try:
        ports = free_ports(2 + 4)
        backend = start(running, load_core, [args.backend, "serve", *(f"127.0.0.1:{port}" for port in ports[:2])], folder)
        wait_for(ports[0], backend)
        proxies = start_proxies(running, proxy_core, args, folder, ports)
        for name, proxy in proxies.items():
            wait_for(proxy["port"], proxy["process"])
        rounds = measure(args, proxies, load_core)
        report(args, rounds, cores, proxy_core, load_core)
        print(f"{len(rounds)} measurements, 0 failed", file=sys.stderr)
    finally:
        for process in reversed(running):
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutover", required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--sizes", default="128,16k,256k")
    parser.add_argument("--only", default="", help="comma-separated proxies; default: all")
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


def start_proxies(running, core, args, folder, ports):
    """All run at once; the ones that wait for their turn cost nothing but memory."""
    fill = {"dir": str(folder), "backend": ports[0], "backend2": ports[1]}
    commands = {
        "relay": lambda port: [args.backend, "relay", f"127.0.0.1:{port}", f"127.0.0.1:{ports[0]}"],
        "nginx": lambda port: ["nginx", "-p", str(folder), "-c", filled("nginx.conf", folder, port=port, **fill)],
        "haproxy": lambda port: ["haproxy", "-db", "-f", filled("haproxy.cfg", folder, port=port, **fill)],
        "cutover": lambda port: [args.cutover, "run", "-c", filled("cutover.toml", folder, port=port, **fill)],
    }
    wanted = args.only.split(",") if args.only else list(commands)
    proxies = {}
    for (name, command), port in zip(commands.items(), ports[2:]):
        if name in wanted:
            proxies[name] = {"port": port, "process": start(running, core, command(port), folder)}
    return proxies


def filled(template, folder, **values):
    text = (HERE / template).read_text()
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    path = folder / template
    path.write_text(text)
    return str(path)


def free_ports(count):
    """Below the range of outgoing connections, so that none of ours takes one in between."""
    found, port = [], 10000 + os.getpid() % 10000
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def start(running, core, command, folder):
    log = open(folder / f"{len(running)}.log", "wb")
    process = subprocess.Popen(["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    process.log = folder / f"{len(running)}.log"
    running.append(process)
    return process


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port, process):
    deadline = time.monotonic() + 20
    while True:
        if process.poll() is not None:
            sys.exit(f"{process.args[3]} ended with {process.returncode}:\n{process.log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
                client.settimeout(5)
                client.sendall(b"GET /128 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                head = client.recv(4096)
            if head.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            sys.exit(f"{process.args[3]} does not answer on port {port}:\n{process.log.read_text()}")
        time.sleep(0.05)


def measure(args, proxies, load_core):
    rounds = []
    for number in range(args.rounds):
        for size in args.sizes.split(","):
            # Another first one each round: whoever runs first on a cold cache shall not always be the same.
            names = list(proxies)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                one = measure_one(args, name, proxies[name], size, load_core)
                rounds.append(one)
                shown = "round {round} {size:>4} {proxy:8} {cpu_us:7.2f} µs {rps:8.0f} rps p50 {p50_ms:.2f} p99 {p99_ms:.2f} ms"
                print(shown.format(round=number + 1, **one), file=sys.stderr)
    return rounds


def measure_one(args, name, proxy, size, load_core):
    url = f"http://127.0.0.1:{proxy['port']}{SIZES[size]}"
    wrk(load_core, args.warmup, url)
    pids = family(proxy["process"].pid)
    before = sum(cpu_seconds(pid) for pid in pids)
    requests, seconds, p50, p99 = wrk(load_core, args.seconds, url)
    cpu = sum(cpu_seconds(pid) for pid in pids) - before
    return {
        "proxy": name,
        "size": size,
        "requests": requests,
        "cpu_us": cpu * 1e6 / requests,
        "rps": requests / seconds,
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_share": cpu / seconds,
    }


def wrk(core, seconds, url):
    """wrk counts whole seconds only; less is a run of one second cut by a signal, and wrk reports on that too."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if seconds < 1:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=seconds + 30)
    found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if not found or int(found[1]) == 0:
        sys.exit(f"{' '.join(command)} served nothing:\n{text}{errors}")
    for line in text.splitlines():
        if "Non-2xx" in line or ("Socket errors" in line and seconds >= 1):
            sys.exit(f"{url}: {line.strip()}")
    return int(found[1]), milliseconds(found[2], found[3]) / 1000, percentile(text, "50%"), percentile(text, "99%")


def percentile(text, name):
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s|m)\b", text)
    return milliseconds(found[1], found[2]) if found else float("nan")


def milliseconds(number, unit):
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def family(pid):
    """A process and its children: nginx's master and worker."""
    pids = [pid]
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pids += family(int(child))
    return pids


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def report(args, rounds, cores, proxy_core, load_core):
    facts = {
        "cores": len(cores),
        "cpu": cpu_model(),
        "kernel": platform.release(),
        "pinned": f"proxy to core {proxy_core}, wrk and backend to core {load_core}",
        "load": f"wrk -t1 -c{CONNECTIONS}, {args.rounds} rounds of {args.seconds:g} s, in turn",
        "versions": versions(args),
    }
    table = summary(rounds)
    text = [f"- {name}: {value}" for name, value in facts.items() if name != "versions"]
    text += [f"- {version}" for version in facts["versions"].values()]
    for size in dict.fromkeys(one["size"] for one in rounds):
        text += ["", f"| {size} bytes | CPU µs/request (spread) | × the better peer | requests/s | p50 ms | p99 ms |"]
        text += ["|---|---|---|---|---|---|"]
        for name, row in table[size].items():
            ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
            floor = " (floor: no HTTP)" if name == "relay" else ""
            text.append(
                f"| {name}{floor} | {row['cpu_us']:.2f} ({row['cpu_us_min']:.2f}–{row['cpu_us_max']:.2f}) | {ratio} "
                f"| {row['rps']:,.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |"
            )
    if args.smoke:
        text.insert(0, "SMOKE RUN OF A DEBUG BUILD: no figure here says anything.\n")
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text("\n".join(text) + "\n")
    (out / "compare.json").write_text(json.dumps({**facts, "smoke": args.smoke, "summary": table, "rounds": rounds}, indent=1) + "\n")
    print("\n".join(text))
    print(f"\nwritten: {out}/compare.md, {out}/compare.json", file=sys.stderr)


def summary(rounds):
    """Medians over the rounds; the ratio is to the better peer of the same run."""
    table = {}
    for one in rounds:
        table.setdefault(one["size"], {}).setdefault(one["proxy"], []).append(one)
    for size, rows in table.items():
        for name, ones in rows.items():
            row = {key: statistics.median(one[key] for one in ones) for key in ("cpu_us", "rps", "p50_ms", "p99_ms", "cpu_share")}
            row["cpu_us_min"] = min(one["cpu_us"] for one in ones)
            row["cpu_us_max"] = max(one["cpu_us"] for one in ones)
            rows[name] = row
        peers = [rows[name]["cpu_us"] for name in PEERS if name in rows]
        for name, row in rows.items():
            row["ratio"] = row["cpu_us"] / min(peers) if peers and min(peers) > 0 else None
    return table


def versions(args):
    commands = {
        "cutover": [args.cutover, "--version"],
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "wrk": ["wrk", "-v"],
    }
    found = {}
    for name, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        found[name] = lines[0] if lines else name
    return found


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
