"""Redirects what is marked, as the rules of a sidecar do: marked TCP that leaves this network namespace, over IPv4 or
IPv6, goes to one port of this host. Without any tool: the messages of nftables, written by hand.

usage: redirect.py PORT MARK      in a network namespace of its own, by its root
"""
import fcntl
import socket
import struct
import sys

PORT, MARK = int(sys.argv[1]), int(sys.argv[2])
INET, TABLES = 1, 10


def attribute(kind, data):
    if isinstance(data, str):
        data = data.encode() + b"\0"
    elif isinstance(data, int):
        data = struct.pack(">i", data)
    elif isinstance(data, list):
        kind, data = kind | 0x8000, b"".join(data)
    out = struct.pack("=HH", len(data) + 4, kind) + data
    return out + b"\0" * (-len(out) % 4)


def message(kind, flags, family, resource, attributes, number):
    body = struct.pack(">BBH", family, 0, resource) + b"".join(attributes)
    return struct.pack("=IHHII", len(body) + 16, kind, flags, number, 0) + body


def expression(name, attributes):
    return attribute(1, [attribute(1, name), attribute(2, attributes)])


def equal(value):
    return expression("cmp", [attribute(1, 1), attribute(2, 0), attribute(3, [attribute(1, value)])])


def rules():
    table = [attribute(1, "t")]
    # A chain of NAT at the way out (hook 3), at the place that NAT has there.
    hook = [attribute(1, 3), attribute(2, -100)]
    chain = [attribute(1, "t"), attribute(3, "o"), attribute(4, hook), attribute(5, 1), attribute(7, "nat")]
    steps = [
        expression("meta", [attribute(1, 1), attribute(2, 3)]),
        equal(struct.pack("=I", MARK)),
        expression("meta", [attribute(1, 1), attribute(2, 16)]),
        equal(b"\x06"),
        expression("immediate", [attribute(1, 1), attribute(2, [attribute(1, struct.pack(">H", PORT))])]),
        expression("redir", [attribute(1, 1)]),
    ]
    rule = [attribute(1, "t"), attribute(2, "o"), attribute(4, steps)]
    create = 0x405
    return [
        message(0x10, 1, 0, TABLES, [], 1),
        message(TABLES << 8 | 0, create, INET, 0, table, 2),
        message(TABLES << 8 | 3, create, INET, 0, chain, 3),
        message(TABLES << 8 | 6, create | 0x800, INET, 0, rule, 4),
        message(0x11, 1, 0, TABLES, [], 5),
    ]


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCSIFFLAGS with IFF_UP and IFF_RUNNING.
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 0x41, b""))


loopback_up()
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
    netlink.settimeout(10)
    netlink.bind((0, 0))
    netlink.send(b"".join(rules()))
    agreed = 0
    while agreed < 3:
        answer = netlink.recv(65536)
        while len(answer) >= 20:
            length, kind, _, number, _ = struct.unpack_from("=IHHII", answer)
            (error,) = struct.unpack_from("=i", answer, 16)
            if kind == 2 and error:
                sys.exit(f"message {number}: error {-error}")
            agreed += kind == 2
            answer = answer[(length + 3) & ~3 :]
