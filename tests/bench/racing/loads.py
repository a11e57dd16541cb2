"""The kinds of load: each runs on the load's core for some seconds and says how many requests were answered."""

import json
import re
import socket
import ssl
import time

from . import config, machine

# Connections before those that are counted.
WARM = 50


def micros(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def wrk(race, url, connections, seconds, header=None):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "5s"]
    out = race.load(command + (["-H", header] if header else []) + [url])
    asked = re.search(r"(\d+) requests in", out)
    if not asked:
        raise RuntimeError(out[-500:])
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    at = {f"p{p}": micros(re.search(rf"\n\s+{p}%\s+(\S+)", out)[1]) for p in (50, 99)}
    return {"n": int(asked[1]) - bad, "bad": bad, "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), **at}


def http1(race, base, seconds):
    return wrk(race, f"http://127.0.0.1:{base + config.HTTP1}/", 64, seconds)


def latency(race, base, seconds):
    return wrk(race, f"http://127.0.0.1:{base + config.HTTP1}/", 1, seconds)


def tls(race, base, seconds):
    return wrk(race, f"https://127.0.0.1:{base + config.TLS}/", 64, seconds)


def handshake(race, base, seconds):
    return wrk(race, f"https://127.0.0.1:{base + config.TLS}/", 16, seconds, "Connection: close")


def pair(race, base, seconds):
    return wrk(race, f"http://127.0.0.1:{base + config.OUT}/", 64, seconds)


def paced(race, port, rate, seconds):
    command = [race.field.tools, "rate", f"127.0.0.1:{port}", "--rate", str(rate), "--seconds", str(seconds)]
    return json.loads(race.load(command))


def rate(race, base, seconds):
    return paced(race, base + config.HTTP1, 2000, seconds)


def pair_rate(race, base, seconds):
    return paced(race, base + config.OUT, 1000, seconds)


def http2(race, base, seconds):
    out = race.load(["h2load", "-t1", "-D", str(seconds), "-c16", "-m32", f"http://127.0.0.1:{base + config.HTTP2}/"])
    done = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", out)
    if not done:
        raise RuntimeError(out[-500:])
    return {"n": int(done[1]), "bad": int(done[2]), "rps": int(done[1]) / seconds}


def http3(race, base, seconds):
    command = [race.field.tools, "h3", f"127.0.0.1:{base + config.HTTP3}", "--seconds", str(seconds)]
    return json.loads(race.load(command))


def tcp(race, base, _seconds):
    done = json.loads(race.load([race.field.tools, "sink", f"127.0.0.1:{base + config.TCP}"]))
    return {"n": done["n"] / 2**30, "bad": 0, "gbs": done["n"] / done["seconds"] / 1e9}


def idle_connections(race, pids, port, count, secure):
    """KiB for each of so many connections that served one request and wait. A few come before and are not counted: what a proxy
    holds once, such as the pages of its program, is no connection's."""
    connections = [one_request(port, secure) for _ in range(WARM)]
    before = machine.memory(pids)["Pss"]
    connections += [one_request(port, secure) for _ in range(count)]
    time.sleep(1.5)
    after = machine.memory(pids)["Pss"]
    for stream in connections:
        stream.close()
    return (after - before) / count


def one_request(port, secure):
    """A connection that served a request."""
    stream = socket.create_connection(("127.0.0.1", port), 10)
    if secure:
        stream = ssl._create_unverified_context().wrap_socket(stream)  # noqa: S323 (the race's own authority)
    stream.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    got = b""
    while len(got) < 1024 + 40:
        piece = stream.recv(65536)
        if not piece:
            raise RuntimeError("closed before the response was here")
        got += piece
    return stream
