"""What is measured: one row a kind of work, and the memory of idle connections."""

import dataclasses
import json
import re
import subprocess
import sys
import time

import peers
from peers import CLEAR, RPC, SOCKETS, TLS

# A gRPC message: not compressed, 64 bytes (its head has the flag and the length).
MESSAGE = b"\0\0\0\0\x40" + b"x" * 64


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    needs: str
    # "wrk", "load" or "h2load", and its options.
    tool: str
    path: str
    options: tuple = ()
    tls: bool = False


ROWS = (
    Row("128", "128 B, kept connections", CLEAR, "wrk", "/128", (64,)),
    Row("16k", "16 KiB, kept connections", CLEAR, "wrk", "/16k", (64,)),
    Row("256k", "256 KiB, kept connections", CLEAR, "wrk", "/256k", (64,)),
    Row("10m", "10 MiB, kept connections", CLEAR, "wrk", "/10m", (8,)),
    Row("close", "128 B, a new connection each", CLEAR, "load", "/128", ("closed", "--connections", "64", "--close")),
    Row("socket", "WebSocket: a message of 64 B and its echo", SOCKETS, "load", "/socket", ("sockets", "--connections", "64")),
    Row("tls-full", "TLS 1.3: full handshake and 128 B", TLS, "load", "/128", ("closed", "--connections", "16", "--tls", "full"), True),
    Row("tls-resumed", "TLS 1.3: resumed handshake and 128 B", TLS, "load", "/128", ("closed", "--connections", "16", "--tls", "resumed"), True),
    Row("tls-128", "TLS: 128 B, kept connections", TLS, "load", "/128", ("closed", "--connections", "64"), True),
    Row("tls-64k", "TLS: 64 KiB, kept connections", TLS, "load", "/64k", ("closed", "--connections", "64"), True),
    Row("h2-128", "HTTP/2 over TLS, 8 × 32 streams: 128 B", TLS, "h2load", "/128", ("-c8", "-m32"), True),
    Row("h2-64k", "HTTP/2 over TLS, 8 × 32 streams: 64 KiB", TLS, "h2load", "/64k", ("-c8", "-m32"), True),
    Row("grpc", "gRPC unary over HTTP/2 and TLS, 8 × 32 streams", RPC, "h2load", "/bench.Echo/Unary", ("-c8", "-m32"), True),
)


class Failed(Exception):
    """A measurement that says nothing, because requests failed."""


def measure(row, proxy, tools, core, seconds, warmup):
    """One row of one proxy, once: CPU µs a request, requests a second, percentiles where the tool has them."""
    run = {"wrk": wrk, "load": load, "h2load": h2load}[row.tool]
    cpu, took, found = run(row, proxy, tools, core, seconds, warmup)
    if found["requests"] == 0:
        raise Failed("nothing was answered")
    # A few connections that a proxy closes at the wrong moment are told; more than that is no measurement.
    if found.get("failed", 0) > max(5, found["requests"] // 1000):
        raise Failed(f"{found['failed']} of {found['requests']} failed: {found.get('why', '')}")
    return {
        "proxy": proxy.name,
        "row": row.name,
        "cpu_us": cpu * 1e6 / found["requests"],
        "rps": found["requests"] / took,
        "cpu_share": cpu / took,
        "rss_kib": proxy.rss_kib(),
        **found,
    }


def load(row, proxy, tools, core, seconds, warmup, *more):
    """`bench_load` says when its warm-up is over, so that connecting is not counted where connections are kept."""
    mode, *options = row.options
    command = ["taskset", "-c", str(core), tools.load, mode, proxy.url(row.path, row.tls), *options, *more]
    command += ["--seconds", str(seconds), "--warmup", str(warmup), *(["--ca", tools.cert] if row.tls else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = process.stdout.readline()
    before, start = proxy.cpu_seconds(), time.monotonic()
    line = process.stdout.readline()
    cpu, took = proxy.cpu_seconds() - before, time.monotonic() - start
    _, errors = process.communicate(timeout=30)
    if process.returncode != 0 or begun != "begin\n":
        raise Failed(f"{' '.join(command)}: {errors.strip()}")
    found = json.loads(line)
    return cpu, took, milliseconds(found)


def milliseconds(found):
    return {(key[:-3] + "_ms" if key.endswith("_us") else key): (value / 1000 if key.endswith("_us") else value) for key, value in found.items()}


def wrk(row, proxy, tools, core, seconds, warmup):
    """wrk counts whole seconds only; less is a run of one second cut by a signal, and wrk reports on that too."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{row.options[0]}", "--latency", "--timeout", "10s"]
    run_wrk(command, proxy.url(row.path), warmup)
    before = proxy.cpu_seconds()
    text = run_wrk(command, proxy.url(row.path), seconds)
    cpu = proxy.cpu_seconds() - before
    found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if not found:
        raise Failed(f"wrk says nothing:\n{text}")
    for line in text.splitlines():
        if "Non-2xx" in line or ("Socket errors" in line and seconds >= 1):
            raise Failed(line.strip())
    took = as_ms(found[2], found[3]) / 1000
    return cpu, took, {"requests": int(found[1]), "p50_ms": percentile(text, "50%"), "p99_ms": percentile(text, "99%")}


def run_wrk(command, url, seconds):
    process = subprocess.Popen([*command, f"-d{max(1, round(seconds))}s", url], stdout=subprocess.PIPE, text=True)
    if seconds < 1:
        time.sleep(seconds)
        process.terminate() if seconds == 0 else process.send_signal(2)
    return process.communicate(timeout=seconds + 30)[0]


def percentile(text, name):
    found = re.search(rf"{name}\s+([\d.]+)(us|ms|s|m)\b", text)
    return as_ms(found[1], found[2]) if found else None


def as_ms(number, unit):
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def h2load(row, proxy, tools, core, seconds, warmup):
    command = ["taskset", "-c", str(core), "h2load", "-t1", *row.options, "--groups=X25519"]
    if row.needs == RPC:
        command += ["-d", tools.message, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = proxy.url(row.path, row.tls)
    run_h2load(command, url, warmup)
    before = proxy.cpu_seconds()
    text = run_h2load(command, url, seconds)
    cpu = proxy.cpu_seconds() - before
    took = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    if not took or not counts:
        raise Failed(f"h2load says nothing:\n{text[-500:]}")
    if "Application protocol: h2" not in text:
        raise Failed("not HTTP/2")
    done, failed, _ = (int(number) for number in counts.groups())
    return cpu, as_ms(took[1], took[2]) / 1000, {"requests": done, "failed": failed}


def run_h2load(command, url, seconds):
    # In whole requests for what is shorter than its clock.
    much = ["-n", "256"] if seconds < 0.5 else ["-D", f"{max(1, round(seconds))}"]
    process = subprocess.run([*command, *much, url], capture_output=True, text=True, timeout=seconds + 60, check=False)
    return process.stdout + process.stderr


def at_rate(rate, proxy, tools, core, seconds, warmup):
    """Latencies of 128 B over 64 kept connections at a fixed rate, each from the time at which it was due."""
    row = Row("rate", "", CLEAR, "load", "/128", ("rate", "--connections", "64", "--rate", str(rate)))
    cpu, took, found = load(row, proxy, tools, core, seconds, warmup)
    return {"proxy": proxy.name, "rate": rate, "cpu_us": cpu * 1e6 / found["requests"], "took": took, **found}


def idle(proxy, tools, cores, backend, folder, connections, tls, settle):
    """KiB of resident memory for each connection that has asked once and is silent. A fresh process."""
    proxy_core, load_core = cores
    proxy.start(proxy_core, backend, folder)
    try:
        peer_once(proxy, tools, load_core, tls)
        before = proxy.rss_kib()
        command = ["taskset", "-c", str(load_core), tools.load, "idle", proxy.url("/128", tls)]
        command += ["--connections", str(connections), *(["--ca", tools.cert] if tls else [])]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if process.stdout.readline() != "begin\n":
            raise Failed(process.communicate(timeout=30)[1].strip())
        time.sleep(settle)
        after = proxy.rss_kib()
        answer, _ = process.communicate("", timeout=30)
        held = json.loads(answer)
    finally:
        proxy.stop()
    if held["still_open"] < connections:
        raise Failed(f"{connections - held['still_open']} of {connections} were closed")
    return {
        "proxy": proxy.name,
        "tls": tls,
        "connections": connections,
        "kib": (after - before) / connections,
        "rss_before_kib": before,
        "rss_kib": after,
    }


def peer_once(proxy, tools, core, tls):
    """What the first connections of a process allocate once is not theirs."""
    command = ["taskset", "-c", str(core), tools.load, "closed", proxy.url("/128", tls), "--connections", "32", "--seconds", "0.3"]
    done = subprocess.run(command + (["--ca", tools.cert] if tls else []), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip())


def make_certificate(folder):
    """ECDSA P-256, its own authority; also as one file, for HAProxy."""
    cert, key, pair = folder / "cert.pem", folder / "key.pem", folder / "pair.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    command += ["-config", str(peers.CONFIGS / "certificate.cnf"), "-keyout", str(key), "-out", str(cert)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"openssl: {done.stderr}")
    pair.write_text(cert.read_text() + key.read_text())
    return str(cert), str(key), str(pair)
