#!/usr/bin/env python3
"""Measures the demo federation from outside: start-up, change latency, memory, and what a failure costs.

    cargo build --release && python3 tests/bench/federation.py [--changes 50] [--gateway FILE] [--json FILE]

Prints a table; `docs/performance.md` holds the newest one. Loads are bounded in count and time and go to loopback only.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "drive"))
from tombolo import ROOT, Federation, request, until  # noqa: E402

ROUTE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: bench-change
  namespace: default
spec:
  hosts: [{host}]
  http:
  - directResponse:
      status: 299
      body:
        string: "change {number}"
"""

CROSS = """apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: bench-change
  namespace: default
spec:
  address: {address}
  labels: {{app: bench-change, security.istio.io/tlsMode: istio}}
  serviceAccount: {account}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: bench-change
  namespace: default
spec:
  hosts: [bench-change-{number}.mesh.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, targetPort: {port}, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: bench-change}}}}
"""


def rss(pid):
    """Resident memory in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024


def write(path, text):
    """As an editor does: a new file takes the old one's name."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Load:
    """Numbered requests, one after another in each thread, each on its own connection; keeps what failed and when."""

    def __init__(self, address, url, threads=2, pause=0.004):
        self.results, self.stopping = [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(address, url, pause)) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, address, url, pause):
        while not self.stopping.is_set() and len(self.results) < 200_000:
            started = time.monotonic()
            answer = request(address, url, timeout=5)
            self.results.append((started, answer.status, answer.seconds))
            time.sleep(pause)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        failed = [r for r in self.results if r[1] != 200]
        return len(self.results), len(failed)


def local_changes(federation, folder, count):
    caller = federation.workloads("east", "storefront")[0]["sidecar"]["http_proxy"]
    times = []
    for number in range(count):
        write(folder / "bench-change.yaml", ROUTE.format(host="bench-change.example.com", number=number) + service_entry())
        started = time.monotonic()
        wanted = f"change {number}".encode()
        seen = until(lambda: request(caller, "http://bench-change.example.com/").body == wanted, 5, 0.001)
        if not seen:
            sys.exit(f"change {number} did not take effect within 5 s")
        times.append((time.monotonic() - started) * 1000)
    return times


def service_entry():
    return """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bench-change, namespace: default}
spec:
  hosts: [bench-change.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
"""


def cross_changes(federation, folder, count):
    """A new host in west, served by a workload there, answers a sidecar in east."""
    caller = federation.workloads("east", "storefront")[0]["sidecar"]["http_proxy"]
    server = federation.workloads("west", "reviews")[0]
    port, served = next(iter(server["sidecar"]["inbound_ports"].items()))
    address, account = served.rsplit(":", 1)[0], server["service_account"]
    times = []
    for number in range(count):
        write(folder / "bench-cross.yaml", CROSS.format(address=address, account=account, port=port, number=number))
        started = time.monotonic()
        url = f"http://bench-change-{number}.mesh.internal/"
        seen = until(lambda: request(caller, url).status == 200, 5, 0.002)
        if not seen:
            sys.exit(f"cross-site change {number} did not arrive within 5 s")
        times.append((time.monotonic() - started) * 1000)
    return times


def kill_and_count(federation, what, pids, seconds=6.0):
    """Kills processes under load between sites that stay whole; every lost request counts."""
    caller = federation.workloads("east", "storefront")[0]["sidecar"]["http_proxy"]
    load = Load(caller, "http://catalog:8080/")
    time.sleep(1.5)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(seconds)
    total, failed = load.stop()
    print(f"{what}: {failed} of {total} requests lost", flush=True)
    return {"what": what, "requests": total, "lost": failed}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--gateway", help="program of the gateways and sidecars, such as one built to be shipped")
    parser.add_argument("--json")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="tombolo-bench-"))
    sites = {}
    for name in ("east", "west", "vm"):
        shutil.copytree(ROOT / "samples" / "shop" / name, work / name)
        sites[name] = work / name
    federation = Federation(sites, arguments=["--gateway", options.gateway] if options.gateway else [])
    figures = {"ready_seconds": round(federation.ready_after, 2)}
    try:
        print(f"ready after {federation.ready_after:.2f} s", flush=True)
        time.sleep(3)
        figures["memory_mib"] = memory(federation)
        for name, times in (
            ("local", local_changes(federation, work / "east", options.changes)),
            ("cross-site", cross_changes(federation, work / "west", options.changes)),
        ):
            row = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "max": max(times)}
            figures[f"change_{name}_ms"] = {k: round(v, 1) for k, v in row.items()}
            print(f"change to effect, {name}, {len(times)} changes: p50 {row['p50']:.1f} ms, p99 {row['p99']:.1f} ms", flush=True)
        west, vm = federation.site("west"), federation.site("vm")
        figures["kills"] = [
            kill_and_count(federation, "east-west gateway of west killed", [west["east_west"]["pid"]]),
            kill_and_count(federation, "control plane of west killed", [west["control_plane"]["pid"]]),
            kill_and_count(federation, "control plane of east killed", [federation.site("east")["control_plane"]["pid"]]),
            kill_and_count(
                federation, "every daemon of vm killed", [vm[k]["pid"] for k in ("control_plane", "east_west", "ingress")]
            ),
        ]
    finally:
        federation.stop()
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def memory(federation):
    rows = {"control plane": [], "ingress gateway": [], "east-west gateway": [], "sidecar": [], "stand-in workload": []}
    for site in federation.up()["sites"]:
        rows["control plane"].append(rss(site["control_plane"]["pid"]))
        rows["ingress gateway"].append(rss(site["ingress"]["pid"]))
        rows["east-west gateway"].append(rss(site["east_west"]["pid"]))
        for workload in site["workloads"]:
            rows["sidecar"].append(rss(workload["sidecar_pid"]))
            rows["stand-in workload"].append(rss(workload["pid"]))
    table = {}
    for name, values in rows.items():
        table[name] = {"median": round(statistics.median(values), 1), "max": round(max(values), 1), "n": len(values)}
        print(f"memory, {name}: median {table[name]['median']} MiB, max {table[name]['max']} MiB of {len(values)}", flush=True)
    return table


if __name__ == "__main__":
    main()
