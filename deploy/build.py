#!/usr/bin/env python3
"""Builds the gateway as it ships: optimised for what it does most.

    python3 deploy/build.py [--seconds 2]

Compilers guess which branches are taken and which functions are called together; a program that was watched while it worked
leaves nothing to guess. So the gateway is built twice with profile `dist`: once to count, under the loads of tests/bench, and
once with the counts. The result is target/shipped/tombolo-gateway; the race takes it with `--binary`.

Needs what the race needs (openssl, wrk, h2load) and llvm-profdata of the compiler's LLVM: `rustup component add llvm-tools`, or
the distribution's package llvm-N, or $LLVM_PROFDATA.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/bench"))
import race  # noqa: E402
from racing import config, machine, proxies  # noqa: E402

PACKAGE = ["-p", "tombolo-gateway-proxy", "--bin", "tombolo-gateway"]


def compiler():
    """The compiler's target, and the major version of its LLVM."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"host: (\S+)", said)[1], re.search(r"LLVM version: (\d+)", said)[1]


def profdata(target, version):
    """The tool that reads what the counting program wrote. Another LLVM's does not understand it."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    for found in (
        os.environ.get("LLVM_PROFDATA"),
        shutil.which(f"{sysroot}/lib/rustlib/{target}/bin/llvm-profdata"),
        shutil.which(f"llvm-profdata-{version}"),
        shutil.which(f"/usr/lib/llvm-{version}/bin/llvm-profdata"),
    ):
        if found:
            return found
    raise SystemExit(
        f"llvm-profdata of LLVM {version} was not found: rustup component add llvm-tools, or install llvm-{version}"
    )


def build(target, folder, flags):
    """Builds with flags for the target alone: what runs while building is not counted."""
    environment = {**os.environ, "RUSTFLAGS": " ".join([os.environ.get("RUSTFLAGS", ""), *flags]).strip()}
    subprocess.run(
        ["cargo", "build", "--locked", "--profile", "dist", "--target", target, "--target-dir", folder, *PACKAGE],
        cwd=ROOT, env=environment, check=True,
    )  # fmt: skip
    return folder / target / "dist" / "tombolo-gateway"


def train(binary, seconds):
    """The loads of the race, for this gateway alone, each on a gateway that writes its counts when it is told to end."""
    machine.many_files()
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "tombolo-tests-bench"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="tombolo-train-") as folder:
        field = proxies.Field(folder, binary, ROOT / "target/release/tombolo-bench")
        try:
            field.backends()
            base = proxies.BASES["tombolo"]
            field.xds_proxy("tombolo", "tombolo", config.single(base, field.certs), base + config.HTTP1)
            field.xds_proxy("tombolo", "tombolo-b", config.inbound(base, field.certs), base + config.IN)
            field.xds_proxy("tombolo", "tombolo-a", config.outbound(base, field.certs), base + config.OUT)
            trained = race.Race(field, seconds, urgent=False)
            trained.rows(list(race.ROWS), ["tombolo"], repeat=1)
            trained.scale_run("tombolo", 10_000)
        finally:
            field.stop_all()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="how long each load lasts")
    args = parser.parse_args()
    target, version = compiler()
    tool = profdata(target, version)
    folder = ROOT / "target/shipped"
    counts, merged = folder / "counts", folder / "merged.profdata"
    shutil.rmtree(counts, ignore_errors=True)
    train(build(target, folder / "counting", [f"-Cprofile-generate={counts}"]), args.seconds)
    subprocess.run([tool, "merge", "-o", merged, *sorted(counts.glob("*.profraw"))], check=True)
    built = build(target, folder / "built", [f"-Cprofile-use={merged}"])
    shutil.copy2(built, folder / "tombolo-gateway")
    print(f"built {folder / 'tombolo-gateway'}")


if __name__ == "__main__":
    main()
