"""Drives a running `tombolo up` from outside, with nothing but Python's standard library.

Used by `tests/samples.py` and `tests/bench/federation.py`. Talks to loopback addresses that `up.json` names, and to nothing
else.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]


def binary():
    """The release build, or what TOMBOLO names."""
    return os.environ.get("TOMBOLO", str(ROOT / "target" / "release" / "tombolo"))


class Answer:
    """What came back: status (0 when the connection failed), headers, body, and how long it took."""

    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def version(self):
        return (self.json().get("labels") or {}).get("version", f"status {self.status}")

    def workload(self):
        return self.json().get("workload", f"status {self.status}")


def request(address, target, headers=None, timeout=15.0, method="GET", body=None):
    """One request on a connection of its own. `target` may be an absolute URI, as a proxy takes it."""
    host, port = address.rsplit(":", 1)
    started = time.monotonic()
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        sent = dict(headers or {})
        if "Host" not in sent:
            sent["Host"] = urlsplit(target).netloc or address
        if body is not None:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content, time.monotonic() - started)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, {}, str(error).encode(), time.monotonic() - started)
    finally:
        connection.close()


class Federation:
    """`tombolo up` in a process of its own. Ends only what it started."""

    def __init__(self, sites=None, arguments=(), ready_within=120):
        self.state = Path(tempfile.mkdtemp(prefix="tombolo-drive-"))
        command = [binary(), "up", "--state", str(self.state / "state"), *arguments]
        if os.environ.get("TOMBOLO_LOOPBACK_BASE"):
            command += ["--loopback-base", os.environ["TOMBOLO_LOOPBACK_BASE"]]
        for name, folder in (sites or {}).items():
            command += ["--site", f"{name}={folder}"]
        self.log = open(self.state / "up.log", "w", encoding="utf-8")
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        self._wait_ready(ready_within)
        self.ready_after = time.monotonic() - self.started

    def _wait_ready(self, seconds):
        path = self.state / "state" / "up.json"
        deadline = time.monotonic() + seconds
        while not path.exists():
            if self.process.poll() is not None:
                sys.exit(f"tombolo up ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > deadline:
                output = self.output()
                self.stop()
                sys.exit(f"tombolo up was not ready after {seconds} s:\n{output}")
            time.sleep(0.02)

    def output(self):
        return (self.state / "up.log").read_text(encoding="utf-8", errors="replace")[-6000:]

    def up(self):
        """The current `up.json`."""
        return json.loads((self.state / "state" / "up.json").read_text(encoding="utf-8"))

    def site(self, name):
        return next(site for site in self.up()["sites"] if site["name"] == name)

    def workloads(self, site, prefix):
        return [w for w in self.site(site)["workloads"] if w["name"].startswith(prefix)]

    def call(self, site, workload, url, **options):
        """A request as that workload makes it: through the proxy port of its sidecar."""
        caller = self.workloads(site, workload)[0]
        return request(caller["sidecar"]["http_proxy"], url, **options)

    def ingress(self, site, port, target, **options):
        """A request from outside to a gateway port, by the number that the manifest uses."""
        return request(self.site(site)["ingress"]["ports"][str(port)], target, **options)

    def command(self, *arguments, timeout=30):
        """Another `tombolo` command against this federation: (exit code, output)."""
        done = subprocess.run(
            [binary(), *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        if os.environ.get("KEEP_STATE"):
            print(f"state kept in {self.state}")
        else:
            shutil.rmtree(self.state, ignore_errors=True)


def until(condition, seconds=5.0, pause=0.05):
    """Waits for the condition; returns what it last gave."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(pause)


def share(calls, of=lambda answer: answer.version()):
    """How often each value came."""
    return Counter(of(answer) for answer in calls)


class Report:
    """A table of expectations, printed as it grows; `close` gives the exit code."""

    def __init__(self):
        self.failed = self.passed = 0

    def check(self, what, good, seen):
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {what}: {seen}", flush=True)
        return good

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0
