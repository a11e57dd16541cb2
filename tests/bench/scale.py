#!/usr/bin/env python3
"""Many clusters and virtual hosts over xDS: start, memory, what a change of one costs, what a request costs.

    cargo build --profile dist -p tombolo-gateway-proxy --bin tombolo-gateway
    python3 tests/bench/scale.py [--counts 10,10000] [--modes delta,sotw,vhds] [--admin] [--json FILE]

A control plane of this folder's own (`tombolo-bench ads`) serves as many clusters with endpoints and virtual hosts as asked for, by the
delta protocol, as state of the world, or with virtual hosts one by one (`vhds`). Prints for each count: seconds from the start of the
process to its first answer, resident MiB, CPU milliseconds and bytes for the change of one cluster, one set of endpoints and one
virtual host, and CPU seconds for 100,000 requests. `--admin` also asks the admin interface for everything and prints how far resident
memory rose meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from racing import config, loads, machine, proxies  # noqa: E402

ADS, LISTENER, BACKEND, ADMIN = 21_030, 21_031, 21_032, 21_095
CHANGES = 30
PAGES = ("/config_dump", "/config_dump?include_eds", "/clusters", "/clusters?format=json", "/stats", "/stats/prometheus")


class Scale:
    """Has what `loads.wrk` wants of a race."""

    def __init__(self, args, tools, folder):
        self.args, self.tools, self.folder = args, tools, Path(folder)
        self.urgent = machine.may_be_first()

    def load(self, command):
        return machine.on_load_core(command, self.urgent, timeout=120)

    def run(self, mode, count):
        log = open(self.folder / f"{mode}-{count}.log", "w")
        serve = [self.tools, "ads", f"127.0.0.1:{ADS}", "--count", str(count), "--port", str(LISTENER)]
        serve += ["--backend", str(BACKEND)]
        serve += ["--one-by-one"] * (mode == "vhds")
        core = ["taskset", "-c", machine.LOAD_CORE]
        control = subprocess.Popen(core + serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        command = [self.args.binary, *(["gateway"] if Path(self.args.binary).name == "tombolo" else [])]
        command += ["--xds", f"127.0.0.1:{ADS}", "--node", "scale", "--workers", "1", "--admin", f"127.0.0.1:{ADMIN}"]
        command += ["--xds-mode", "sotw" if mode == "sotw" else "delta", "--log", "warn"]
        gateway = None
        try:
            wait_for(ADS)
            begun = time.time()
            gateway = subprocess.Popen(["taskset", "-c", machine.PROXY_CORE] + command, stdout=log, stderr=log)
            first_answer(count, gateway)
            found = {"start": time.time() - begun, "start_cpu": machine.cpu([gateway.pid])}
            time.sleep(3)
            found["rss"] = machine.memory([gateway.pid])["Rss"] / 1024
            found |= {kind: self.changes(gateway.pid, control, kind, count) for kind in ("cluster", "load", "host")}
            found["cpu"] = self.requests(gateway.pid, count)
            if self.args.admin:
                found["admin"] = {page: admin(gateway.pid, page) for page in PAGES}
            return found
        finally:
            for process in (gateway, control):
                if process:
                    process.terminate()
                    process.wait(20)

    def changes(self, pid, control, kind, count):
        """CPU milliseconds, bytes down and up, and milliseconds until the acknowledgement, for one change."""
        answers = []
        before = machine.cpu([pid])
        for number in range(CHANGES):
            control.stdin.write(f"{kind} {(number * 7919 + 13) % count}\n")
            control.stdin.flush()
            answers.append(json.loads(control.stdout.readline()))
            if answers[-1]["problem"]:
                raise RuntimeError(answers[-1]["problem"])
        # What follows an acknowledgement counts as well.
        time.sleep(0.2)
        spent = machine.cpu([pid]) - before
        median = lambda key: statistics.median(answer[key] for answer in answers)  # noqa: E731
        return {
            "cpu_ms": spent * 1000 / CHANGES,
            "ack_ms": median("micros") / 1000,
            "sent": median("sent"),
            "received": median("received"),
        }

    def requests(self, pid, count):
        costs = []
        for _ in range(self.args.repeat):
            with machine.Meter([pid], []) as meter:
                header = f"Host: {config.name_of(count // 2)}"
                done = loads.wrk(self, f"http://127.0.0.1:{LISTENER}/", 64, self.args.seconds, header)
            if done["bad"]:
                raise RuntimeError(f"{done['bad']} requests failed")
            costs.append(meter.cpu / done["n"] * 100_000)
        return statistics.median(costs)


def wait_for(port):
    until = time.time() + 20
    while not proxies.accepts(port):
        if time.time() > until:
            raise RuntimeError(f"nobody listens at {port}")
        time.sleep(0.02)


def first_answer(count, process):
    request = urllib.request.Request(f"http://127.0.0.1:{LISTENER}/", headers={"Host": config.name_of(count // 2)})
    until = time.time() + 120
    while time.time() < until and process.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=30).read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
    raise RuntimeError("no answer")


def admin(pid, page):
    """MiB by which resident memory rose at most while a page was read, its size in MiB, and seconds."""
    before = machine.memory([pid])["Rss"]
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")
    begun, size = time.time(), 0
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}{page}", timeout=60) as answer:
        while part := answer.read(1 << 16):
            size += len(part)
    took = time.time() - begun
    with open(f"/proc/{pid}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    time.sleep(1)
    after = machine.memory([pid])["Rss"]
    return {"rise": (peak - before) / 1024, "stays": (after - before) / 1024, "size": size / 1048576, "seconds": took}


def show(mode, count, found):
    print(f"{mode} {count}: first answer {found['start']:.2f} s (CPU {found['start_cpu']:.2f} s), {found['rss']:.1f} MiB", flush=True)
    for kind in ("cluster", "load", "host"):
        one = found[kind]
        print(
            f"  one {kind}: CPU {one['cpu_ms']:.2f} ms, acknowledged after {one['ack_ms']:.2f} ms, "
            f"{one['sent']:.0f} bytes down, {one['received']:.0f} up"
        )
    print(f"  100,000 requests: {found['cpu']:.2f} CPU s")
    for page, one in found.get("admin", {}).items():
        print(f"  {page}: {one['size']:.1f} MiB in {one['seconds']:.2f} s, memory +{one['rise']:.1f} MiB, stays +{one['stays']:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1,10,10000")
    parser.add_argument("--modes", default="delta,sotw,vhds")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--admin", action="store_true")
    parser.add_argument("--binary", default=str(proxies.ROOT / "target/dist/tombolo-gateway"))
    parser.add_argument("--tools", default=str(proxies.ROOT / "target/release/tombolo-bench"))
    parser.add_argument("--json")
    args = parser.parse_args()
    machine.many_files()
    backend = [args.tools, "backend", f"127.0.0.1:{BACKEND}"]
    backend = subprocess.Popen(["taskset", "-c", machine.LOAD_CORE, *backend], stdout=subprocess.DEVNULL)
    found = {}
    try:
        with tempfile.TemporaryDirectory(prefix="tombolo-scale-") as folder:
            scale = Scale(args, args.tools, folder)
            for mode in args.modes.split(","):
                for count in (int(count) for count in args.counts.split(",")):
                    found[f"{mode} {count}"] = scale.run(mode, count)
                    show(mode, count, found[f"{mode} {count}"])
    finally:
        backend.terminate()
        backend.wait(10)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
