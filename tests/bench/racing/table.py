"""Turns results into the table of docs/performance.md."""

BEGIN, END = "<!-- race: begin -->", "<!-- race: end -->"

TITLES = {
    "http1": "HTTP/1.1 keep-alive, 64 connections",
    "rate": "the same at 2,000 requests/s",
    "latency": "one connection, unloaded",
    "http2": "HTTP/2 (h2c) to HTTP/2, 16 connections × 32 streams",
    "tls": "TLS 1.3 keep-alive, 64 connections",
    "handshake": "TLS 1.3 full handshakes",
    "pair_rate": "sidecar pair at 1,000 requests/s, both hops",
    "pair": "sidecar pair, saturated",
    "tcp": "TCP bulk, plaintext (CPU-s/GiB)",
    "http3": "HTTP/3, 16 connections × 32 streams",
}
GOALS = {
    "http1": "≤ 0.30 and ≤ nginx",
    "rate": "≤ 0.30",
    "latency": "p50 ≤ 40 µs",
    "http2": "≤ 0.30",
    "tls": "≤ 0.35",
    "handshake": "≤ 0.65",
    "pair_rate": "≤ 0.35",
    "pair": "≤ 0.30",
    "tcp": "≤ 0.35, 2 × GB/s",
    "http3": "≤ 0.50",
}
NAMES = ("envoy", "tombolo", "nginx", "haproxy")


def render(found, median):
    """The tables as Markdown."""
    parts = [cpu_table(found["rows"], median)] if found.get("rows") else []
    if "memory" in found:
        parts.append(memory_table(found["memory"]))
    if "scale" in found:
        parts.append(scale_table(found["scale"], median))
    return "\n\n".join(parts) + "\n"


def cpu_table(rows, median):
    lines = [
        "| row | goal (CPU, Envoy = 1) | Envoy | **Tombolo** | nginx | HAProxy | latency: Envoy · **Tombolo** · nginx |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, by_name in rows.items():
        base = median([r["cpu"] for r in by_name["envoy"]]) if by_name.get("envoy") else None
        cells = []
        for name in NAMES:
            if name not in by_name:
                cells.append("–")
                continue
            cpu = median([r["cpu"] for r in by_name[name]])
            ratio = f"{cpu / base:.2f} " if base else ""
            cells.append(f"{ratio}({cpu:.2f} s)")
        lines.append(f"| {TITLES[row]} | {GOALS[row]} | " + " | ".join(cells) + f" | {speeds(by_name, median)} |")
    return "\n".join(lines)


def speeds(by_name, median):
    parts = []
    for name in ("envoy", "tombolo", "nginx"):
        results = by_name.get(name)
        if not results:
            continue
        if results[0].get("gbs"):
            parts.append(f"{median([r['gbs'] for r in results]):.2f} GB/s")
        elif results[0].get("p50"):
            parts.append(f"{median([r['p50'] for r in results]):.0f}/{median([r['p99'] for r in results]):.0f} µs")
        else:
            parts.append(f"{median([r['rps'] for r in results]):,.0f} req/s")
    return " · ".join(parts)


def memory_table(memory):
    lines = [
        "| memory | goal | " + " | ".join(n for n in NAMES if n in memory) + " |",
        "| --- | --- |" + " --- |" * len([n for n in NAMES if n in memory]),
    ]
    kinds = (
        ("idle", "idle resident, MiB", "≤ 12"),
        ("plain", "each idle connection, KiB", "≤ 4"),
        ("tls", "each idle TLS connection, KiB", "≤ 12"),
    )
    for key, title, goal in kinds:
        lines.append(f"| {title} | {goal} | " + " | ".join(f"{memory[n][key]:.1f}" for n in NAMES if n in memory) + " |")
    return "\n".join(lines)


def scale_table(scale, median):
    lines = [
        "| 10,000 clusters and virtual hosts | goal | Envoy | **Tombolo** |",
        "| --- | --- | --- | --- |",
    ]
    kinds = (("start", "start to first answer, s", "≤ 0.4"), ("rss", "resident, MiB", "≤ 64"))
    for key, title, goal in kinds:
        cells = [f"{median([r[key] for r in scale[n][10_000]]):.2f}" for n in ("envoy", "tombolo")]
        lines.append(f"| {title} | {goal} | " + " | ".join(cells) + " |")
    cells = []
    for name in ("envoy", "tombolo"):
        one, many = (median([r["cpu"] for r in scale[name][count]]) for count in (1, 10_000))
        cells.append(f"{(many / one - 1) * 100:+.0f} %")
    lines.append("| CPU of a request against one virtual host | ≤ +3 % | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path, text):
    """Replaces what stands between the two marks."""
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
