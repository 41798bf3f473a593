#!/usr/bin/env python3
"""What rules and affinity cost a request of the real binary, end to end.

    benches/rules/rules.py BINARY BACKEND [--rounds N]

Three configurations that differ in nothing else: without, with three native rules (none holds) and clients by cookie
while a candidate has 10 %, and with one rule that needs the CEL interpreter. Two measures of each:

- instructions in user space per request, by valgrind's callgrind: the difference between a long run and a short one, so
  that start and end are not in it. It does not depend on what else the machine does.
- CPU time per request, user and system: /proc/PID/stat over what wrk got answered, in turns; the median of the rounds, and
  of the ratios within each round.

Needs valgrind and wrk (Debian). BACKEND is the example `bench_backend`.
"""
import argparse, os, re, signal, socket, statistics, subprocess, sys, tempfile, time

NATIVE = """
[[app.web.rule]]
when = 'request.headers["x-beta"] == "1" && request.path.startsWith("/api")'
color = "candidate"
[[app.web.rule]]
when = 'request.cookies["tier"] == "gold"'
color = "candidate"
[[app.web.rule]]
when = 'client.address.inNetwork("10.20.0.0/16")'
color = "candidate"
"""
CEL = """
[[app.web.rule]]
when = 'size(request.path) > 1000'
color = "candidate"
"""
VARIANTS = [("without", "", 0), ("native", NATIVE, 10), ("cel", CEL, 0)]


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proxy:
    def __init__(self, binary, folder, backends, variant, under=()):
        name, rules, weight = variant
        self.port, self.dir = free(), os.path.join(folder, f"{name}-{time.monotonic_ns()}")
        os.mkdir(self.dir)
        text = f"""
[server]
workers = 1
state_dir = "{self.dir}/state"
[log]
access = "off"
[[listener]]
address = "127.0.0.1:{self.port}"
[app.web]
initial = "blue"
blue = ["127.0.0.1:{backends[0]}"]
green = ["127.0.0.1:{backends[1]}"]
health = {{ kind = "tcp", interval = "10m", timeout = "30s" }}
{rules}"""
        path = os.path.join(self.dir, "cutover.toml")
        with open(path, "w") as file:
            file.write(text)
        self.callgrind = os.path.join(self.dir, "callgrind.out")
        command = [part.replace("OUT", self.callgrind) for part in under] + [binary, "run", "-c", path]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.wait()
        if weight:
            admin = f"unix:{self.dir}/state/admin.sock"
            subprocess.run([binary, "weight", f"green={weight}", "--admin", admin], check=True, capture_output=True)
        self.cookie = self.first_cookie()

    def wait(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if self.exchange(Connection(self.port), "0").startswith(b"HTTP/1.1 200"):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit("the proxy does not answer")

    def exchange(self, connection, cookie):
        return connection.get(f"GET /128 HTTP/1.1\r\nHost: web\r\nCookie: a=b; cutover_id={cookie}\r\n\r\n")

    def first_cookie(self):
        head = self.exchange(Connection(self.port), "x")
        found = re.search(rb"cutover_id=([^;\r]+)", head)
        return found.group(1).decode() if found else "0" * 16

    def requests(self, count):
        connection = Connection(self.port)
        for _ in range(count):
            self.exchange(connection, self.cookie)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, request):
        self.socket.sendall(request.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.socket.recv(65536)
            if not part:
                raise OSError("closed")
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
        while len(body) < length:
            body += self.socket.recv(65536)
        return head


def instructions(binary, folder, backends, variant, count):
    """In user space, from start to end, with so many requests."""
    under = ["valgrind", "--tool=callgrind", "--callgrind-out-file=OUT", "--quiet"]
    proxy = Proxy(binary, folder, backends, variant, under)
    proxy.requests(count)
    proxy.stop()
    with open(proxy.callgrind) as file:
        return int(re.search(r"^(?:totals|summary): (\d+)", file.read(), re.M).group(1))


def microseconds(proxy, seconds):
    before = proxy.cpu()
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", "-H", f"Cookie: a=b; cutover_id={proxy.cookie}",
         f"http://127.0.0.1:{proxy.port}/128"], capture_output=True, text=True, check=True).stdout
    return (proxy.cpu() - before) * 1e6 / int(re.search(r"(\d+) requests in", out).group(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("backend")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    backends = [free(), free()]
    served = subprocess.Popen(["taskset", "-c", "1", arguments.backend, "serve"] + [f"127.0.0.1:{port}" for port in backends],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            counted = {}
            for variant in VARIANTS:
                few, many = (instructions(arguments.binary, folder, backends, variant, count)
                             for count in (500, 500 + arguments.requests))
                counted[variant[0]] = (many - few) / arguments.requests
            proxies = {variant[0]: Proxy(arguments.binary, folder, backends, variant, ["taskset", "-c", "0"])
                       for variant in VARIANTS}
            names, taken = list(proxies), {name: [] for name in proxies}
            for turn in range(arguments.rounds + 1):
                for name in names[turn % 3:] + names[:turn % 3]:
                    taken[name].append(microseconds(proxies[name], arguments.seconds))
            taken = {name: times[1:] for name, times in taken.items()}
            for proxy in proxies.values():
                proxy.stop()
    finally:
        served.terminate()
        served.wait()
    print("| | instructions a request (user) | ratio | CPU µs a request (user + system) | ratio, median of rounds |")
    print("|---|---|---|---|---|")
    for name in counted:
        ratios = [mine / base for mine, base in zip(taken[name], taken["without"])]
        print(f"| {name} | {counted[name]:,.0f} | {counted[name] / counted['without']:.3f} "
              f"| {statistics.median(taken[name]):.2f} | {statistics.median(ratios):.3f} |")


if __name__ == "__main__":
    main()
