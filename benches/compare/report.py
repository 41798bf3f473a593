"""From measurements to what is read: medians, ratios, goals; Markdown, JSON and plots."""

import json
import statistics

import plots
from rows import ROWS

INCUMBENTS = ("nginx", "haproxy")


class Results:
    """All that was measured. Each list has the measurements as they came."""

    def __init__(self):
        self.rounds, self.rates, self.idle, self.switches, self.operations = [], [], [], [], []
        # (what, who) → why there is no figure.
        self.missing = {}

    def count(self):
        return sum(len(part) for part in (self.rounds, self.rates, self.idle, self.switches, self.operations))

    def table(self, key, ones):
        """{row: {proxy: medians and spread}}"""
        grouped = {}
        for one in ones:
            grouped.setdefault(one[key], {}).setdefault(one["proxy"], []).append(one)
        return {name: {proxy: middle(them) for proxy, them in proxies.items()} for name, proxies in grouped.items()}


def middle(ones):
    """Medians of all numbers, and the spread of what is judged."""
    found = {}
    for key, value in ones[0].items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            values = [one[key] for one in ones if isinstance(one.get(key), (int, float))]
            found[key] = statistics.median(values)
            if key in ("cpu_us", "p99_ms", "kib"):
                found[f"{key}_min"], found[f"{key}_max"] = min(values), max(values)
    return {**found, "measurements": len(ones)}


def better(proxies, key, who=INCUMBENTS):
    """The best of the peers: least, or None where none of them has a figure."""
    values = [proxies[name][key] for name in who if name in proxies and proxies[name].get(key) is not None]
    return min(values) if values else None


def judge(results):
    """The goals of performance.md, each with what was measured: (work, goal, measured, met or None)."""
    goals = []
    work = results.table("row", results.rounds)

    def ratio(row, key, peers, limit, what):
        proxies = work.get(row, {})
        best, ours = better(proxies, key, peers), proxies.get("cutover", {}).get(key)
        value = ours / best if best and ours is not None else None
        goals.append((what, f"≤ {limit} ×", "–" if value is None else f"{value:.2f} ×", None if value is None else value <= limit))

    def times_faster(row, limit, what):
        proxies = work.get(row, {})
        best, ours = better(proxies, "cpu_us"), proxies.get("cutover", {}).get("cpu_us")
        value = best / ours if best and ours else None
        goals.append((what, f"≥ {limit} ×", "–" if value is None else f"{value:.2f} ×", None if value is None else value >= limit))

    ratio("128", "cpu_us", INCUMBENTS, 0.90, "128 B kept: CPU/request against the better of nginx and HAProxy")
    ratio("128", "cpu_us", ("relay",), 1.15, "128 B kept: CPU/request against the L4 relay")
    rates = results.table("rate", results.rates)
    for proxies in rates.values():
        best, ours = better(proxies, "p99_ms"), proxies.get("cutover", {}).get("p99_ms")
        if best is not None and ours is not None:
            goals.append(("128 B at a fixed rate: p99 against the better of nginx and HAProxy", "≤ 1 ×", f"{ours / best:.2f} ×", ours <= best))
    for row, limit in (("16k", 0.75), ("256k", 0.75), ("10m", 0.9)):
        ratio(row, "cpu_us", INCUMBENTS, limit, f"{row}: CPU/answer against the better of nginx and HAProxy")
    times_faster("tls-full", 1.9, "TLS full handshakes a CPU second against the better one")
    times_faster("tls-resumed", 1.7, "TLS resumed handshakes a CPU second against the better one")
    ratio("tls-64k", "cpu_us", INCUMBENTS, 0.65, "64 KiB over TLS: CPU against the better one")
    ratio("h2-128", "cpu_us", (*INCUMBENTS, "envoy"), 0.9, "HTTP/2 128 B: CPU against the best of nginx, HAProxy, Envoy")
    ratio("h2-64k", "cpu_us", (*INCUMBENTS, "envoy"), 0.6, "HTTP/2 64 KiB: CPU against the best of nginx, HAProxy, Envoy")
    for tls, limit in ((False, 4), (True, 12)):
        ones = [one["kib"] for one in results.idle if one["proxy"] == "cutover" and one["tls"] == tls]
        what = f"an idle connection{' with TLS' if tls else ''}"
        goals.append((what, f"≤ {limit} KiB", f"{statistics.median(ones):.1f} KiB" if ones else "–", statistics.median(ones) <= limit if ones else None))
    ours = [one for one in results.switches if one["proxy"] == "cutover"]
    if ours:
        failed, late, count = (sum(one[key] for one in ours) for key in ("failed", "late", "switches"))
        goals.append((f"{count} switches under load: failed and late requests", "0 and 0", f"{failed} and {late}", failed == late == 0))
    for one in [one | {"what": "a switch"} for one in ours if one["rate"]] + results.operations:
        value = one["during_p99_ms"] / one["quiet_p99_ms"]
        goals.append((f"p99 during {one['what']} against the quiet p99, fixed rate", "≤ 1.2 ×", f"{value:.2f} ×", value <= 1.2))
    return goals


def write(results, facts, out, smoke):
    goals = judge(results)
    text = ["# The comparison", ""]
    if smoke:
        text += ["**A SMOKE RUN OF A DEBUG BUILD: no figure here says anything.**", ""]
    text += [f"- {name}: {value}" for name, value in facts.items() if name != "versions"]
    text += [f"- {version}" for version in facts["versions"].values()]
    text += goals_text(goals) + rows_text(results) + rates_text(results) + idle_text(results) + switches_text(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text("\n".join(text) + "\n")
    whole = {
        **facts,
        "smoke": smoke,
        "goals": [dict(zip(("work", "goal", "measured", "met"), goal)) for goal in goals],
        "summary": results.table("row", results.rounds),
        **{key: value for key, value in vars(results).items() if key != "missing"},
        "missing": [{"what": what, "who": who, "why": why} for (what, who), why in results.missing.items()],
    }
    (out / "compare.json").write_text(json.dumps(whole, indent=1) + "\n")
    written = ["compare.md", "compare.json"]
    for name, plot in plot_all(results).items():
        (out / name).write_text(plot)
        written.append(name)
    return "\n".join(text), [str(out / name) for name in written]


def goals_text(goals):
    met = sum(1 for goal in goals if goal[3])
    text = ["", f"## Goals: {met} of {len(goals)} met in this run", "", "| work | goal | measured | |", "|---|---|---|---|"]
    words = {True: "met", False: "**not met**", None: "not measured"}
    return text + [f"| {work} | {goal} | {measured} | {words[state]} |" for work, goal, measured, state in goals]


def number(value, digits=2):
    return "–" if value is None else f"{value:,.{digits}f}"


def rows_text(results):
    work = results.table("row", results.rounds)
    text = ["", "## CPU of the proxy"] if work else []
    for row in ROWS:
        proxies = work.get(row.name)
        if not proxies:
            continue
        best = better(proxies, "cpu_us")
        text += ["", f"| {row.title} | CPU µs/request (spread) | × the better of nginx, HAProxy | requests/s | p50 ms | p99 ms | RSS MiB |"]
        text += ["|---|---|---|---|---|---|---|"]
        for name, one in proxies.items():
            ratio = number(one["cpu_us"] / best if best else None)
            floor = " (floor: no HTTP)" if name == "relay" else ""
            text.append(
                f"| {name}{floor} | {one['cpu_us']:.2f} ({one['cpu_us_min']:.2f}–{one['cpu_us_max']:.2f}) | {ratio} | {one['rps']:,.0f} "
                f"| {number(one.get('p50_ms'))} | {number(one.get('p99_ms'))} | {one['rss_kib'] / 1024:.0f} |"
            )
        text += missing_text(results, row.name)
    return text


def missing_text(results, what):
    return [f"| {who} | – {why} | | | | | |" for (of, who), why in results.missing.items() if of in (what, "start")]


def rates_text(results):
    text = []
    for rate, proxies in results.table("rate", results.rates).items():
        text += ["", "## Latency at a fixed rate", ""]
        text += [f"| 128 B, {rate:,} requests/s (70 % of what the slowest proxy can) | p50 ms | p99 ms (spread) | p99.9 ms | CPU µs/request |", "|---|---|---|---|---|"]
        for name, one in proxies.items():
            spread = f"{one['p99_ms']:.2f} ({one['p99_ms_min']:.2f}–{one['p99_ms_max']:.2f})"
            text.append(f"| {name} | {one['p50_ms']:.2f} | {spread} | {one['p999_ms']:.2f} | {one['cpu_us']:.2f} |")
    return text


def idle_text(results):
    if not results.idle:
        return []
    count = results.idle[0]["connections"]
    text = ["", "## Memory", "", f"| {count:,} idle connections, after one request each | KiB of RSS a connection | with TLS | process before, MiB |", "|---|---|---|---|"]
    for name in dict.fromkeys(one["proxy"] for one in results.idle):
        cells = {}
        for tls in (False, True):
            ones = [one for one in results.idle if one["proxy"] == name and one["tls"] == tls]
            cells[tls] = number(statistics.median(one["kib"] for one in ones)) if ones else "–"
        before = min(one["rss_before_kib"] for one in results.idle if one["proxy"] == name) / 1024
        text.append(f"| {name} | {cells[False]} | {cells[True]} | {before:.1f} |")
    return text + [f"| {who} | – {why} | | |" for (of, who), why in results.missing.items() if of.startswith("idle")]


def switches_text(results):
    text = []
    if results.switches:
        text += ["", "## The switch under load", ""]
        text += ["`late`: answered by the old color although sent after the command had returned.", ""]
        text += ["| 32 connections | load | requests | failed | late | by up to ms | command ms (most) | p99 ms quiet | p99 ms during |", "|---|---|---|---|---|---|---|---|---|"]
    for one in results.switches:
        load = f"{one['rate']:,}/s" if one["rate"] else "closed loop"
        text.append(
            f"| {one['proxy']}, {one['switches']} switches | {load} | {one['requests']:,} | {one['failed']:,} | {one['late']:,} "
            f"| {one['late_by_ms']:.1f} | {one['command_ms']:.1f} ({one['command_max_ms']:.1f}) | {one['quiet_p99_ms']:.2f} | {one['during_p99_ms']:.2f} |"
        )
    text += [f"| {who} | – {why} | | | | | | | |" for (of, who), why in results.missing.items() if of == "switch"]
    if results.operations:
        text += ["", "| cutover, fixed rate, during | failed | command ms (most) | p99 ms quiet | p99 ms during |", "|---|---|---|---|---|"]
        for one in results.operations:
            text.append(f"| {one['what']} | {one['failed']} | {one['command_ms']:.1f} ({one['command_max_ms']:.1f}) | {one['quiet_p99_ms']:.2f} | {one['during_p99_ms']:.2f} |")
    return text


def plot_all(results):
    work = results.table("row", results.rounds)
    cpu = [
        (row.title, "CPU µs of the proxy per request; the line is the spread", [(name, one["cpu_us"], one["cpu_us_min"], one["cpu_us_max"]) for name, one in work[row.name].items()])
        for row in ROWS
        if row.name in work
    ]
    found = {"cpu.svg": plots.sheet("What a request costs", cpu)}
    for rate, proxies in results.table("rate", results.rates).items():
        panels = [(f"{title} at {rate:,} requests/s", "milliseconds", [(name, one[key], None, None) for name, one in proxies.items()]) for key, title in (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9"))]
        found["latency.svg"] = plots.sheet("Latency at a fixed rate, 128 B", panels)
    if results.idle:
        panels = [
            (title, "KiB of resident memory a connection", [(one["proxy"], max(one["kib"], 0), None, None) for one in results.idle if one["tls"] == tls])
            for tls, title in ((False, "an idle connection"), (True, "an idle TLS connection"))
        ]
        found["idle.svg"] = plots.sheet("What an idle connection holds", panels)
    return found
