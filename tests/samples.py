#!/usr/bin/env python3
"""Runs public sample manifests, unmodified, and checks that each file does what its author meant.

    python3 tests/samples.py FOLDER

FOLDER holds `espressoshop`, `istio-bookinfo`, `istio-helloworld` and `istio-httpbin`. The files are copied into a folder of a
running `tombolo up`, one by one, and removed again, while it runs. Exit code 0 when everything was as expected.
"""

import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "drive"))
from tombolo import Federation, Report, share, until  # noqa: E402

REPORT = Report()


class Folder:
    """A site's folder: files are put in and taken out while the site runs."""

    def __init__(self, source, *first):
        self.source = source
        self.path = Path(tempfile.mkdtemp(prefix="tombolo-sample-"))
        for name in first:
            self.add(name)

    def add(self, name):
        shutil.copy(self.source / name, self.path / Path(name).name)

    def remove(self, name):
        (self.path / Path(name).name).unlink()

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)


def espressoshop(samples):
    folder = Folder(samples / "espressoshop", "kubernetes/espresso-shop.yaml")
    federation = Federation({"shop": folder.path})
    reviews = "http://espresso-shop-reviews-svc:8092/"

    def call(url=reviews, **options):
        return federation.call("shop", "espresso-shop-web", url, **options)

    def versions(count, **options):
        return share(call(**options) for _ in range(count))

    try:
        seen = versions(30)
        REPORT.check("espressoshop: both versions without any rule", set(seen) == {"v1", "v2"}, dict(seen))

        folder.add("istio/all-destination-rules.yaml")
        folder.add("istio/all-virtual-services.yaml")
        until(lambda: set(versions(8)) == {"v1"})
        seen = versions(30)
        REPORT.check("espressoshop: all-virtual-services sends all to v1", set(seen) == {"v1"}, dict(seen))
        folder.remove("istio/all-virtual-services.yaml")

        folder.add("istio/80-20.yaml")
        until(lambda: set(versions(25)) == {"v1", "v2"})
        seen = versions(400)
        good = set(seen) == {"v1", "v2"} and 280 <= seen["v1"] <= 360
        REPORT.check("espressoshop: 80-20 of 400", good, dict(seen))
        folder.remove("istio/80-20.yaml")

        folder.add("istio/browser-based-routing.yaml")
        firefox = {"User-Agent": "Mozilla/5.0 (X11; rv:130.0) Gecko/20100101 Firefox/130.0"}
        until(lambda: set(versions(8)) == {"v1"} and set(versions(8, headers=firefox)) == {"v2"})
        seen = versions(15), versions(15, headers=firefox)
        good = set(seen[0]) == {"v1"} and set(seen[1]) == {"v2"}
        REPORT.check("espressoshop: Firefox gets v2, others v1", good, [dict(s) for s in seen])
        folder.remove("istio/browser-based-routing.yaml")

        folder.add("istio/user-based-routing.yaml")
        admin = {"UserRole": "an Administrator"}
        until(lambda: set(versions(8, headers=admin)) == {"v2"} and set(versions(8, headers=firefox)) == {"v1"})
        seen = versions(15, headers=firefox), versions(15, headers=admin)
        good = set(seen[0]) == {"v1"} and set(seen[1]) == {"v2"}
        REPORT.check("espressoshop: administrators get v2, others v1", good, [dict(s) for s in seen])
        folder.remove("istio/user-based-routing.yaml")

        folder.add("istio/delay.yaml")
        until(lambda: call(timeout=1.0).status == 0)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: call(timeout=20), range(4)))
        good = all(a.status == 200 and 9.9 <= a.seconds < 12 and a.version() == "v1" for a in answers)
        REPORT.check("espressoshop: delay of 10 s on every request", good, [f"{a.seconds:.2f} s" for a in answers])
        folder.remove("istio/delay.yaml")

        folder.add("istio/fault.yaml")
        until(lambda: call(timeout=1.0).status == 500)
        seen = share((call() for _ in range(30)), of=lambda a: a.status)
        REPORT.check("espressoshop: abort of every request with 500 (old integer percent)", set(seen) == {500}, dict(seen))
        folder.remove("istio/fault.yaml")

        folder.add("istio/timeout.yaml")
        until(lambda: call(reviews + "?delay=1500ms").status == 504)
        slow, fast = call(reviews + "?delay=2000ms"), call()
        good = slow.status == 504 and 0.45 <= slow.seconds <= 1.0 and fast.status == 200
        REPORT.check("espressoshop: timeout of 0.5 s", good, f"{slow.status} after {slow.seconds:.2f} s, {fast.status}")
        folder.remove("istio/timeout.yaml")

        folder.add("istio/all-virtual-services.yaml")
        folder.add("istio/circuit-breaker.yaml")

        def burst():
            with ThreadPoolExecutor(12) as pool:
                return list(pool.map(lambda _: call(reviews + "?delay=300ms"), range(12)))

        def overflowed():
            statuses = share(burst(), of=lambda a: a.status)
            return statuses if statuses[503] and statuses[200] else None

        seen = until(overflowed)
        REPORT.check("espressoshop: one connection and one waiting request at most", bool(seen), dict(seen or {}))
        for _ in range(3):
            call(reviews + "?status=503")
        seen = share((call() for _ in range(10)), of=lambda a: a.status)
        REPORT.check("espressoshop: a failing endpoint is ejected (old consecutiveErrors)", set(seen) == {503}, dict(seen))
        folder.remove("istio/circuit-breaker.yaml")
        folder.remove("istio/all-virtual-services.yaml")

        folder.add("istio/gateway.yaml")
        answer = until(lambda: (a := outside(federation, "shop", 80, "/")) and a.status == 200 and a)
        good = bool(answer) and answer.workload().startswith("espresso-shop-web")
        REPORT.check("espressoshop: the gateway with a null match leads to the shop", good, answer and answer.workload())

        withdrawn(federation, folder, "istio/policy/mixer-rule-deny-label.yaml", "AuthorizationPolicy")
        until(lambda: set(versions(8)) == {"v2"})
        REPORT.check("espressoshop: the route beside the withdrawn kinds works", set(versions(8)) == {"v2"}, dict(versions(8)))
        folder.remove("istio/policy/mixer-rule-deny-label.yaml")
        withdrawn(federation, folder, "istio/security/tls-migration.yaml", "PeerAuthentication")
        good = outside(federation, "shop", 80, "/").status == 200
        REPORT.check("espressoshop: nothing else is disturbed", good, good)
    finally:
        federation.stop()
        folder.close()

    federation = Federation({"shop": samples / "espressoshop"})
    try:
        answer = until(lambda: (a := outside(federation, "shop", 80, "/")) and a.status == 200 and a)
        REPORT.check("espressoshop: the whole folder at once", bool(answer), answer and answer.workload())
    finally:
        federation.stop()


def outside(federation, site, port, target, **options):
    """A request to an ingress port; None while the port is not served yet."""
    if str(port) not in federation.site(site)["ingress"]["ports"]:
        return None
    return federation.ingress(site, port, target, **options)


def withdrawn(federation, folder, name, instead):
    """A withdrawn kind is named in the federation's status, with what to write instead."""
    folder.add(name)
    admin = federation.site("shop")["control_plane"]["admin"]

    def reported():
        _, text = federation.command("federation", "status", "-o", "json", "--admin", admin)
        return "WITHDRAWN_KIND" in text and instead in text

    REPORT.check(f"espressoshop: {Path(name).name} is reported, with {instead}", until(reported), instead)
    code, text = federation.command("analyze", "-o", "json", str(folder.path / Path(name).name))
    REPORT.check(f"espressoshop: analyze refuses {Path(name).name}", code != 0 and "WITHDRAWN_KIND" in text, f"exit {code}")


def bookinfo(samples):
    source = samples / "istio-bookinfo"
    folder = Folder(source, "platform/kube/bookinfo.yaml", "networking/destination-rule-all.yaml")
    federation = Federation({"shop": folder.path})

    def call(host, **options):
        return federation.call("shop", "productpage", f"http://{host}:9080/", **options)

    def versions(host, count=12, **options):
        return share(call(host, **options) for _ in range(count))

    def expect(name, host, wanted, **options):
        folder.add(f"networking/{name}")
        until(lambda: set(versions(host, **options)) == wanted)
        seen = versions(host, 24, **options)
        REPORT.check(f"bookinfo: {name} sends {host} to {sorted(wanted)}", set(seen) == wanted, dict(seen))

    def split(name, wanted):
        folder.add(f"networking/{name}")
        until(lambda: set(versions("reviews", 30)) == set(wanted))
        seen = versions("reviews", 400)
        good = set(seen) == set(wanted) and all(abs(seen[v] / 400 - part) < 0.1 for v, part in wanted.items())
        REPORT.check(f"bookinfo: {name}", good, dict(seen))
        folder.remove(f"networking/{name}")

    jason = {"end-user": "jason"}
    try:
        seen = versions("reviews", 40)
        REPORT.check("bookinfo: three versions without any rule", set(seen) == {"v1", "v2", "v3"}, dict(seen))
        expect("virtual-service-all-v1.yaml", "reviews", {"v1"})
        folder.remove("networking/virtual-service-all-v1.yaml")
        expect("virtual-service-reviews-test-v2.yaml", "reviews", {"v2"}, headers=jason)
        seen = versions("reviews")
        REPORT.check("bookinfo: everybody but jason stays on v1", set(seen) == {"v1"}, dict(seen))
        folder.remove("networking/virtual-service-reviews-test-v2.yaml")
        expect("virtual-service-reviews-jason-v2-v3.yaml", "reviews", {"v2"}, headers=jason)
        folder.remove("networking/virtual-service-reviews-jason-v2-v3.yaml")
        expect("virtual-service-reviews-v3.yaml", "reviews", {"v3"})
        folder.remove("networking/virtual-service-reviews-v3.yaml")
        split("virtual-service-reviews-50-v3.yaml", {"v1": 0.5, "v3": 0.5})
        split("virtual-service-reviews-80-20.yaml", {"v1": 0.8, "v2": 0.2})
        split("virtual-service-reviews-90-10.yaml", {"v1": 0.9, "v2": 0.1})
        split("virtual-service-reviews-v2-v3.yaml", {"v2": 0.5, "v3": 0.5})
        faults(folder, call)
        folder.add("networking/bookinfo-gateway.yaml")
        until(lambda: (a := outside(federation, "shop", 8080, "/productpage")) and a.status == 200)
        paths = {path: outside(federation, "shop", 8080, path).status for path in ("/productpage", "/static/x", "/login", "/other")}
        good = paths == {"/productpage": 200, "/static/x": 200, "/login": 200, "/other": 404}
        REPORT.check("bookinfo: bookinfo-gateway.yaml", good, paths)
        expect("destination-rule-all-mtls.yaml", "details", {"v1"})
        peer = call("details").json().get("peer", "")
        REPORT.check("bookinfo: mutual TLS names the caller", peer.endswith("/sa/bookinfo-productpage"), peer)
    finally:
        federation.stop()
        folder.close()


def faults(folder, call):
    folder.add("networking/virtual-service-ratings-test-abort.yaml")
    jason = {"end-user": "jason"}
    until(lambda: call("ratings", headers=jason).status == 500)
    seen = call("ratings", headers=jason).status, call("ratings").status
    REPORT.check("bookinfo: virtual-service-ratings-test-abort.yaml", seen == (500, 200), seen)
    folder.remove("networking/virtual-service-ratings-test-abort.yaml")
    folder.add("networking/virtual-service-ratings-test-delay.yaml")
    until(lambda: call("ratings", headers=jason, timeout=1).status == 0)
    slow, fast = call("ratings", headers=jason), call("ratings")
    good = slow.status == 200 and 6.9 < slow.seconds < 8.5 and fast.seconds < 1
    REPORT.check("bookinfo: virtual-service-ratings-test-delay.yaml", good, f"{slow.seconds:.2f} s, {fast.seconds:.2f} s")
    folder.remove("networking/virtual-service-ratings-test-delay.yaml")
    folder.add("networking/fault-injection-details-v1.yaml")
    until(lambda: call("details").status == 555)
    seen = share((call("details") for _ in range(10)), of=lambda a: a.status)
    REPORT.check("bookinfo: fault-injection-details-v1.yaml", set(seen) == {555}, dict(seen))
    folder.remove("networking/fault-injection-details-v1.yaml")


def whole_bookinfo(samples):
    federation = Federation({"shop": samples / "istio-bookinfo"}, ["--max-replicas", "1"])
    try:
        answer = until(lambda: (a := outside(federation, "shop", 8080, "/productpage")) and a.status == 200 and a, 10)
        REPORT.check("bookinfo: the whole folder at once", bool(answer), answer and answer.workload())
    finally:
        federation.stop()


def helloworld_and_httpbin(samples):
    folder = Folder(samples / "istio-helloworld", "helloworld.yaml", "helloworld-gateway.yaml")
    federation = Federation({"hello": folder.path})
    try:
        until(lambda: (a := outside(federation, "hello", 80, "/hello")) and a.status == 200)
        seen = share(outside(federation, "hello", 80, "/hello") for _ in range(40))
        other = outside(federation, "hello", 80, "/hello2").status
        good = set(seen) == {"v1", "v2"} and other == 404
        REPORT.check("helloworld: both versions at /hello, 404 elsewhere", good, (dict(seen), other))
    finally:
        federation.stop()
        folder.close()
    folder = Folder(samples / "istio-httpbin", "httpbin.yaml", "httpbin-gateway.yaml")
    federation = Federation({"bin": folder.path})
    try:
        answer = until(lambda: (a := outside(federation, "bin", 80, "/headers")) and a.status == 200 and a)
        good = bool(answer) and answer.workload().startswith("httpbin")
        REPORT.check("httpbin: the gateway leads to it", good, answer and answer.workload())
    finally:
        federation.stop()
        folder.close()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    samples = Path(sys.argv[1]).resolve()
    parts = {
        "espressoshop": espressoshop,
        "bookinfo": bookinfo,
        "whole-bookinfo": whole_bookinfo,
        "small": helloworld_and_httpbin,
    }
    for name in sys.argv[2:] or parts:
        print(f"-- {name}", flush=True)
        parts[name](samples)
    sys.exit(REPORT.close())


if __name__ == "__main__":
    main()
