"""An HTTP/3 client that was not written here (aioquic): what must work, and what breaks the rules.

usage: http3.py HOST PORT ROOT.pem [floods|half]     prints one JSON object a line: {"case", "ok", "detail"}

A case that breaks a rule says which end it expects: of its stream, with a code, or of its connection, with a code. After
each, a request on a connection that was open all the time must still be answered.
"""
import asyncio
import json
import os
import socket
import sys
import time

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.connection import QuicConnectionId
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset

HOST, PORT, ROOT = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PATIENCE = 60


def varint(value):
    for bits, prefix in ((6, 0), (14, 1), (30, 2), (62, 3)):
        if value < 1 << bits:
            size = (bits + 2) // 8
            return (value | prefix << (bits)).to_bytes(size, "big")
    raise ValueError(value)


def frame(kind, payload=b""):
    return varint(kind) + varint(len(payload)) + payload


def prefixed(value, bits, flags):
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    out = [flags | most]
    value -= most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def section(fields):
    out = b"\0\0"
    for name, value in fields:
        name, value = name.encode(), value.encode()
        out += prefixed(len(name), 3, 0x20) + name + prefixed(len(value), 7, 0) + value
    return out


GET = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")]
POST = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/echo")]
SETTINGS = frame(4, varint(6) + varint(65536))


class Client(QuicConnectionProtocol):
    """Keeps what happens; requests by aioquic's own HTTP/3, or bytes as they are given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.answers = {}
        self.resets = {}
        self.stopped = {}
        self.raw = {}
        self.end = None
        self.changed = asyncio.Event()

    def speak(self):
        self.http = H3Connection(self._quic)
        return self

    def quic_event_received(self, event):
        if isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, StopSendingReceived):
            self.stopped[event.stream_id] = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.end = event.error_code
        elif isinstance(event, StreamDataReceived) and self.http is None:
            before, _ = self.raw.get(event.stream_id, (b"", False))
            self.raw[event.stream_id] = (before + event.data, event.end_stream)
        if self.http is not None:
            for got in self.http.handle_event(event):
                if isinstance(got, (HeadersReceived, DataReceived)):
                    answer = self.answers.setdefault(got.stream_id, {"heads": [], "body": bytearray(), "over": False})
                    if isinstance(got, HeadersReceived):
                        answer["heads"].append(dict(got.headers))
                    else:
                        answer["body"] += got.data
                    answer["over"] |= got.stream_ended
        self.changed.set()

    async def until(self, check):
        async def wait():
            while not check():
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), PATIENCE)

    async def ask(self, fields, body=None, trailers=None):
        stream = self._quic.get_next_available_stream_id()
        coded = [(name.encode(), value.encode()) for name, value in fields]
        self.http.send_headers(stream, coded, end_stream=body is None and trailers is None)
        if body is not None:
            self.http.send_data(stream, body, end_stream=trailers is None)
        if trailers is not None:
            self.http.send_headers(stream, [(n.encode(), v.encode()) for n, v in trailers], end_stream=True)
        self.transmit()
        await self.until(lambda: self.answers.get(stream, {}).get("over") or stream in self.resets or self.end is not None)
        return self.answers.get(stream)

    def uni(self, data, fin=False):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, data, fin)
        self.transmit()
        return stream

    def bidi(self, data, fin=True):
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, data, fin)
        self.transmit()
        return stream


def open_client():
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(ROOT)
    return connect(HOST, PORT, configuration=configuration, create_protocol=Client)


def report(case, ok, detail=""):
    print(json.dumps({"case": case, "ok": bool(ok), "detail": str(detail)}), flush=True)


async def works():
    async with open_client() as client:
        client.speak()
        got = await client.ask(GET)
        report("get", got["heads"][0][b":status"] == b"200" and got["body"] == b"hello", got)
        report("date", b"date" in got["heads"][0] and got["heads"][0][b"server"] == b"envoy", got)
        got = await client.ask(POST, b"x" * 10)
        report("post", got["body"] == b"x" * 10, got)
        body = bytes(range(256)) * 8192
        got = await client.ask(POST, body)
        report("large body", got["body"] == body, len(got["body"]))
        got = await client.ask(POST, b"abc", [("x-sum", "6")])
        report("trailers", got["body"] == b"abc" and got["heads"][-1].get(b"x-sum") == b"6", got)
        got = await client.ask([(":method", "HEAD")] + GET[1:])
        report("head", got["heads"][0][b":status"] == b"200" and got["body"] == b"", got)
        got = await client.ask(GET[:3] + [(":path", "/headers"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-a", "1")])
        seen = got["body"].decode()
        report("headers", "cookie: a=1; b=2" in seen and "x-a: 1" in seen and "x-forwarded-proto: https" in seen, seen)
        all_at_once = await asyncio.gather(*(client.ask(POST, b"%d" % n) for n in range(50)))
        report("parallel", [a["body"] for a in all_at_once] == [b"%d" % n for n in range(50)], "")
        # Longer than what a connection's windows hold, read while others are served.
        large, small = await asyncio.gather(
            client.ask(GET[:3] + [(":path", "/large/5000000")]), client.ask(GET)
        )
        report("flow control", len(large["body"]) == 5_000_000 and small["body"] == b"hello", len(large["body"]))
        report("still open", client.end is None, client.end)


def streams():
    """name, bytes of a request stream, expected end: ("stream" | "connection", code) or ("status", text)."""
    head = frame(1, section(GET))
    bad = lambda more: frame(1, section(GET + more))
    without = lambda name: frame(1, section([f for f in GET if f[0] != name]))
    changed = lambda name, value: frame(1, section([(n, value if n == name else v) for n, v in GET]))
    post = lambda length, body: frame(1, section(POST + [("content-length", length)])) + body
    ok = ("status", "200")
    unexpected, message, qpack = ("connection", 0x105), ("stream", 0x10E), ("connection", 0x200)
    trailers = frame(1, section([("x", "y")]))
    yield "DATA before HEADERS", frame(0, b"x") + head, unexpected
    yield "DATA after trailers", frame(1, section(POST)) + trailers + frame(0, b"x"), unexpected
    yield "HEADERS after trailers", frame(1, section(POST)) + trailers + trailers, unexpected
    for kind in (2, 3, 4, 5, 6, 7, 8, 9, 13):
        yield "frame %#x on a request stream" % kind, head + frame(kind, b"\0"), unexpected
        yield "frame %#x first on a request stream" % kind, frame(kind, b"\0") + head, unexpected
    yield "reserved frames are passed over", frame(0x21, b"a" * 3000) + head + frame(0x40, b"") + frame(0x1F * 9 + 0x21, b"b"), ok
    yield "a frame cut short", head + varint(0) + varint(10) + b"abc", ("connection", 0x106)
    yield "a head cut short", varint(1) + varint(100) + b"\0\0", ("connection", 0x106)
    yield "no head", b"", ("stream", 0x10D)
    yield "only reserved frames", frame(0x21, b"x"), ("stream", 0x10D)
    for name in (":method", ":scheme", ":path"):
        yield "without " + name, without(name), message
    yield "a large head", frame(1, section(GET + [("x-long", "v" * 70000)])), ("status", "431")
    yield "many fields", frame(1, section(GET + [("x", "")] * 3000)), ("status", "431")
    yield "a head without end", varint(1) + varint(1 << 40), ("status", "431")
    yield "without :authority", without(":authority"), ("status", "400")
    yield "empty :path", changed(":path", ""), message
    yield "relative :path", changed(":path", "x"), message
    yield "blank in :path", changed(":path", "/a b"), message
    yield "user in :authority", changed(":authority", "u@h"), message
    yield "blank in :method", changed(":method", "G T"), message
    yield "unknown :scheme", changed(":scheme", "gopher"), message
    yield "CONNECT with a path", changed(":method", "CONNECT"), message
    for fields in (
        [("a", "b"), (":path", "/")],
        [(":path", "/")],
        [(":unknown", "x")],
        [(":status", "200")],
        [(":protocol", "websocket")],
        [("Upper", "x")],
        [("a b", "x")],
        [('a"b', "x")],
        [("", "x")],
        [("connection", "close")],
        [("keep-alive", "1")],
        [("proxy-connection", "x")],
        [("transfer-encoding", "chunked")],
        [("upgrade", "h2c")],
        [("te", "gzip")],
        [("a", "x\r\ny: z")],
        [("a", "x\ny")],
        [("a", "\0")],
        [("a", " x")],
        [("a", "x\t")],
        [("host", "other")],
        [("content-length", "-1")],
        [("content-length", "1x")],
        [("content-length", "0"), ("content-length", "0")],
    ):
        yield "field %r" % (fields,), bad(fields), message
    yield "length without a body", post("5", b""), message
    yield "body shorter than its length", post("5", frame(0, b"abc")), message
    yield "body longer than its length", post("2", frame(0, b"abc")), message
    yield "body as long as its length", post("3", frame(0, b"a") + frame(0, b"bc")), ok
    yield "pseudo-header field in trailers", frame(1, section(POST)) + frame(0, b"x") + frame(1, section([(":path", "/")])), message
    yield "field of a connection in trailers", frame(1, section(POST)) + frame(1, section([("connection", "x")])), message
    yield "insert count without a table", frame(1, b"\x02\0\xd1"), qpack
    yield "dynamic index", frame(1, b"\0\0\x80"), qpack
    yield "index behind the base", frame(1, b"\0\0\x10"), qpack
    yield "dynamic name", frame(1, b"\0\0\x40\x01x"), qpack
    yield "no such static entry", frame(1, b"\0\0\xff\x40"), qpack
    yield "endless integer", frame(1, b"\0\0\xff" + b"\xff" * 20), qpack
    yield "text cut short", frame(1, b"\0\0\x51\x0a/"), qpack
    yield "bad Huffman padding", frame(1, b"\0\0\x51\x81\x18"), qpack
    yield "no prefix", frame(1, b""), qpack


def connections():
    """name, list of unidirectional streams as (bytes, fin), expected code."""
    control = b"\0" + SETTINGS
    yield "control stream without SETTINGS", [(b"\0" + frame(7, b"\0"), False)], 0x10A
    yield "reserved frame before SETTINGS", [(b"\0" + frame(0x21, b"x") + SETTINGS, False)], 0x10A
    yield "SETTINGS twice", [(control + SETTINGS, False)], 0x105
    yield "a setting twice", [(b"\0" + frame(4, varint(6) + b"\1" + varint(6) + b"\2"), False)], 0x109
    for setting in (0, 2, 3, 4, 5):
        yield "setting %d of HTTP/2" % setting, [(b"\0" + frame(4, varint(setting) + b"\1"), False)], 0x109
    yield "SETTINGS cut short", [(b"\0" + frame(4, varint(6)), False)], 0x106
    yield "extended CONNECT neither on nor off", [(b"\0" + frame(4, b"\x08\x02"), False)], 0x109
    for kind in (0, 1, 2, 5, 6, 8, 9):
        yield "frame %#x on the control stream" % kind, [(control + frame(kind, b"\0\0"), False)], 0x105
    yield "two control streams", [(control, False), (control, False)], 0x103
    yield "two encoder streams", [(control, False), (b"\2", False), (b"\2", False)], 0x103
    yield "two decoder streams", [(control, False), (b"\3", False), (b"\3", False)], 0x103
    yield "control stream closed", [(control, True)], 0x104
    yield "encoder stream closed", [(control, False), (b"\2", True)], 0x104
    yield "decoder stream closed", [(control, False), (b"\3", True)], 0x104
    yield "a client pushes", [(control, False), (b"\1\0", False)], 0x103
    yield "MAX_PUSH_ID goes down", [(control + frame(13, b"\5") + frame(13, b"\4"), False)], 0x108
    yield "CANCEL_PUSH of nothing", [(control + frame(3, b"\0"), False)], 0x108
    yield "GOAWAY goes up", [(control + frame(7, b"\0") + frame(7, b"\4"), False)], 0x108
    yield "GOAWAY with more than an id", [(control + frame(7, b"\0\0"), False)], 0x106
    yield "a settings frame without end", [(b"\0" + varint(4) + varint(1 << 40), False)], 0x107
    yield "insertion without a table", [(control, False), (b"\2" + b"\x4a" + b"custom-key\x0ccustom-value", False)], 0x201
    yield "capacity that was not offered", [(control, False), (b"\2\x3f\xbd\x01", False)], 0x201
    yield "acknowledgement of nothing", [(control, False), (b"\3\x84", False)], 0x202
    yield "increment of nothing", [(control, False), (b"\3\x01", False)], 0x202


async def expect(client, stream, expected):
    kind, value = expected
    if kind == "connection":
        await client.until(lambda: client.end is not None)
        return client.end == value, "%#x" % client.end
    if kind == "stream":
        await client.until(lambda: stream in client.resets or client.end is not None or client.raw.get(stream, (b"", False))[1])
        got = client.resets.get(stream)
        return got == value and client.end is None, (got and hex(got), client.end, client.raw.get(stream))
    answer = None

    def over():
        return client.raw.get(stream, (b"", False))[1] or stream in client.resets or client.end is not None

    await client.until(over)
    answer = client.raw.get(stream, (b"", False))[0]
    status = answered(answer)
    return status == value and client.end is None, (status, client.resets, client.end)


def answered(raw):
    """The status of a response whose head has it in the static table or as a literal behind the first entry's name."""
    if not raw or raw[0] != 1:
        return None
    start = 1 + (1 << (raw[1] >> 6)) + 2
    known = {25: "200", 67: "400"}
    first = raw[start]
    if raw[start : start + 3] == b"\x5f\x09\x03":
        return raw[start + 3 : start + 6].decode()
    if first & 0xC0 == 0xC0 and first & 0x3F != 0x3F:
        return known.get(first & 0x3F)
    if first & 0xC0 == 0xC0:
        return known.get(0x3F + raw[start + 1])
    return None


async def breaks():
    async with open_client() as bystander:
        bystander.speak()
        for name, data, expected in streams():
            async with open_client() as client:
                client.uni(b"\0" + SETTINGS)
                stream = client.bidi(data)
                await judge(name, bystander, expect(client, stream, expected))
        for name, parts, code in connections():
            async with open_client() as client:
                for data, fin in parts:
                    client.uni(data, fin)
                await judge(name, bystander, expect(client, None, ("connection", code)))
        async with open_client() as client:
            client.uni(b"\0" + SETTINGS)
            client.uni(varint(0x21) + b"grease")
            client.uni(b"")
            stream = client.bidi(frame(1, section(GET)))
            await judge("unknown streams are passed over", bystander, expect(client, stream, ("status", "200")))
        async with open_client() as client:
            client.uni(b"\0" + SETTINGS)
            stream = client.bidi(frame(1, section(GET[:3] + [(":path", "/slow")])))
            await client.until(lambda: stream in client.raw)
            client._quic.stop_stream(stream, 0x10C)
            client.transmit()
            other = client.bidi(frame(1, section(GET)))
            await judge("a request is given up", bystander, expect(client, other, ("status", "200")))


async def judge(name, bystander, check):
    try:
        ok, detail = await check
    except asyncio.TimeoutError:
        ok, detail = False, "nothing happened"
    got = await bystander.ask(GET)
    if got is None or got["body"] != b"hello":
        ok, detail = False, "the other connection: %r" % (got,)
    report(name, ok, detail)


def riddle(quic, stream, limit):
    """Makes a stream send every other byte of its first `limit`, each in a frame of its own, and never the rest."""
    sender, write = quic._streams[stream].sender, quic._write_stream_frame
    places = iter(range(100, limit, 2))

    def get_frame(max_size, max_offset=None):
        place = next(places, None)
        if place is None or (max_offset is not None and place >= max_offset):
            sender.buffer_is_empty = True
            return None
        sender._buffer_stop = sender.highest_offset = place + 1
        sender.buffer_is_empty = False
        return QuicStreamFrame(data=b"x", offset=place)

    def many(builder, space, stream, max_offset):
        used = 0
        while builder.remaining_flight_space > 20 and not stream.sender.buffer_is_empty:
            used += write(builder=builder, space=space, stream=stream, max_offset=max_offset)
        return used

    sender.get_frame, sender.on_data_delivery, sender.buffer_is_empty = get_frame, lambda *_: None, False
    quic._write_stream_frame = many


async def gaps(bystander):
    async with open_client() as client:
        client.uni(b"\0" + SETTINGS)
        for _ in range(8):
            stream = client.bidi(frame(1, section(POST)), fin=False)
            await asyncio.sleep(0)
            riddle(client._quic, stream, 60_000)
            client.transmit()
            try:
                await asyncio.wait_for(client.ping(), PATIENCE)
            except ConnectionError:
                break
        # The gateway may have had enough of it; what counts is memory, and that nobody else is the worse for it.
        got = await bystander.ask(GET)
        report("streams full of gaps", got["body"] == b"hello", (client.end, got))


async def identities(bystander):
    async with open_client() as client:
        client.uni(b"\0" + SETTINGS)
        quic = client._quic
        for _ in range(200):
            fresh = QuicConnectionId(os.urandom(8), quic._host_cid_seq, os.urandom(16))
            quic._host_cids.append(fresh)
            quic._host_cid_seq += 1
        client.transmit()
        await judge("more connection ids than were allowed", bystander, expect(client, None, ("connection", 0x9)))


async def amplification(bystander):
    """A client that says hello once, from an address that may not be its own, and nothing more."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    quic = QuicConnection(configuration=configuration)
    quic.connect((HOST, PORT), now=time.time())
    hello = [data for data, _ in quic.datagrams_to_send(now=time.time())]
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
        forged.setblocking(False)
        sent, heard = 0, 0
        for data in hello:
            sent += await loop.sock_sendto(forged, data, (HOST, PORT))
        # However long the first takes to come, all others follow soon.
        heard += len(await asyncio.wait_for(loop.sock_recv(forged, 65536), PATIENCE))
        until = loop.time() + 2
        while loop.time() < until:
            try:
                heard += len(await asyncio.wait_for(loop.sock_recv(forged, 65536), until - loop.time()))
            except asyncio.TimeoutError:
                break
    got = await bystander.ask(GET)
    # quinn asks before each datagram whether three times the hello are reached, so the last one may pass that.
    small = 0 < heard <= 3 * sent + 1200
    report("about three times the hello", small and got["body"] == b"hello", (sent, heard))


async def floods():
    async with open_client() as bystander:
        bystander.speak()
        await gaps(bystander)
        await identities(bystander)
        await amplification(bystander)


async def half():
    """The server writes a head and half of its body, then it is gone."""
    async with open_client() as client:
        client.speak()
        for name, script in (("half an answer", "half close"), ("half and the end at once", "cork half close")):
            got = await client.ask(GET + [("x-script", script)])
            whole = got is not None and got["heads"][0][b":status"] == b"200" and got["body"] == b"half"
            report(name, whole and not got["over"] and client.resets, (got, client.resets))


async def main():
    if sys.argv[4:] == ["floods"]:
        await floods()
    elif sys.argv[4:] == ["half"]:
        await half()
    else:
        await works()
        await breaks()
    report("end", True)


asyncio.run(main())
