"""WebSocket peers that were not written here: `websockets` as server and client, `wsproto` over `h2` and `aioquic`.

usage: websocket.py server                     serves, prints its port, ends when its input does
       websocket.py client NAME=PORT... ROOT   plays the cases at each place, one JSON object a line: {"case", "ok", "detail"}

Places by name: `one` and `pair` take HTTP/1, `two` takes HTTP/2, `three` HTTP/3; `closed` allows no upgrade, `idle` ends
what is silent.
"""
import asyncio
import json
import os
import sys

import h2.config
import h2.connection
import h2.events
import websockets
from aioquic.asyncio import connect as connect_quic
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3 import events as h3
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamReset
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import serve
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

HOST = "127.0.0.1"
PATIENCE = 60
LARGE = bytes(range(256)) * 4096
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100_000]


def quiet():
    """Everything is said in the reports."""
    import logging

    logging.getLogger("websockets").setLevel(logging.CRITICAL)


# --- the server

last = {}


def before(connection, request):
    if request.path == "/refuse":
        return connection.respond(403, "not here\n")
    return None


async def handler(ws):
    path = ws.request.path
    try:
        await answer(ws, path)
    finally:
        if path.startswith("/remember/"):
            await ws.wait_closed()
            last[path.removeprefix("/remember/")] = (ws.protocol.close_rcvd.code if ws.protocol.close_rcvd else None)


async def answer(ws, path):
    if path.startswith("/close/"):
        await ws.close(int(path.removeprefix("/close/")), "as asked")
    elif path == "/fragments":
        await ws.send(["one ", "two ", "three"])
        await ws.send([b"1", b"", b"22"])
    elif path == "/ping":
        await (await ws.ping(b"from the server"))
        await ws.send("answered")
    elif path == "/large":
        await ws.send(LARGE)
    elif path == "/head":
        await ws.send(json.dumps([[n.lower(), v] for n, v in ws.request.headers.raw_items()]))
    elif path == "/drop":
        await ws.recv()
        ws.transport.abort()
    elif path == "/first":
        # The server speaks before it hears anything.
        await ws.send("welcome")
        async for message in ws:
            await ws.send(message)
    elif path.startswith("/recall/"):
        key = path.removeprefix("/recall/")
        for _ in range(PATIENCE * 50):
            if key in last:
                break
            await asyncio.sleep(0.02)
        await ws.send(json.dumps(last.get(key, "nothing")))
    else:
        async for message in ws:
            await ws.send(message)


def choose(connection, offered):
    return "chat.test" if "chat.test" in offered else None


async def server():
    quiet()
    async with serve(handler, HOST, 0, process_request=before, max_size=None, select_subprotocol=choose) as running:
        print(running.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)


# --- clients: each has send, fragments, ping, receive, close, drop


class One:
    """`websockets` over HTTP/1."""

    def __init__(self, ws):
        self.ws = ws

    @classmethod
    async def open(cls, port, path, **more):
        return cls(await connect_websocket(f"ws://{HOST}:{port}{path}", max_size=None, ping_interval=None, **more))

    async def send(self, message):
        await self.ws.send(message)

    async def fragments(self, pieces):
        await self.ws.send(pieces)

    async def ping(self, payload):
        await (await self.ws.ping(payload))

    async def receive(self):
        return await self.ws.recv()

    async def close(self, code):
        await self.ws.close(code)
        return await self.closed()

    async def closed(self):
        await self.ws.wait_closed()
        return self.ws.close_code

    async def drop(self):
        self.ws.transport.abort()


class Framed:
    """`wsproto` in the DATA of a stream."""

    def begin(self):
        self.ws = Connection(ConnectionType.CLIENT)
        self.inbox = asyncio.Queue()
        self.pongs = asyncio.Queue()
        self.partial = []
        self.code = None
        self.finished = False
        self.over = asyncio.Event()

    def arrived(self, data):
        if not data or self.ws.state.name == "CLOSED":
            return
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self.partial.append(event.data)
                if event.message_finished:
                    whole = ("" if isinstance(event.data, str) else b"").join(self.partial)
                    self.partial = []
                    self.inbox.put_nowait(whole)
            elif isinstance(event, Ping):
                self.write(self.ws.send(event.response()))
            elif isinstance(event, Pong):
                self.pongs.put_nowait(event.payload)
            elif isinstance(event, CloseConnection):
                self.code = event.code
                if self.ws.state.name != "CLOSED":
                    self.write(self.ws.send(event.response()))
                self.over.set()

    def ended(self):
        """The other side's half is over, and so is this one."""
        if not self.over.is_set() or not self.finished:
            self.finished = True
            self.finish()
        self.inbox.put_nowait(None)
        self.over.set()

    @staticmethod
    def event(message, last=True):
        kind = TextMessage if isinstance(message, str) else BytesMessage
        return kind(data=message, message_finished=last)

    async def send(self, message):
        self.write(self.ws.send(self.event(message)))

    async def fragments(self, pieces):
        pieces = list(pieces)
        for at, piece in enumerate(pieces):
            self.write(self.ws.send(self.event(piece, at + 1 == len(pieces))))

    async def ping(self, payload):
        self.write(self.ws.send(Ping(payload=payload)))
        while bytes(await self.pongs.get()) != payload:
            pass

    async def receive(self):
        message = await self.inbox.get()
        if message is None:
            raise ConnectionError("the stream is over")
        return message

    async def close(self, code):
        self.write(self.ws.send(CloseConnection(code=code)))
        return await self.closed()

    async def closed(self):
        await self.over.wait()
        return 1006 if self.code is None else self.code


def connect_head(scheme, path, more):
    return [
        (":method", "CONNECT"),
        (":scheme", scheme),
        (":authority", "localhost"),
        (":path", path),
        (":protocol", "websocket"),
        ("sec-websocket-version", "13"),
        # RFC 8441 does without, and servers of HTTP/1 do not: as with Envoy, who wants to reach those sends one.
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        *more,
    ]


class Two(Framed, asyncio.Protocol):
    """`wsproto` over `h2`: extended CONNECT of RFC 8441."""

    @classmethod
    async def open(cls, port, path, more=()):
        self = (await asyncio.get_running_loop().create_connection(cls, HOST, port))[1]
        await self.hello.wait()
        self.offered = self.h2.remote_settings.enable_connect_protocol
        self.h2.send_headers(1, connect_head("http", path, more))
        self.flush()
        await self.answered.wait()
        if self.status != "200":
            raise ConnectionError(f"status {self.status}")
        return self

    def connection_made(self, transport):
        self.begin()
        self.transport = transport
        self.hello, self.answered = asyncio.Event(), asyncio.Event()
        self.status, self.head, self.waiting = None, [], bytearray()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.hello.set()
            elif isinstance(event, h2.events.ResponseReceived):
                self.head = event.headers
                self.status = dict(event.headers)[":status"]
                self.answered.set()
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.arrived(event.data)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.answered.set()
                self.ended()
        self.pump()

    def connection_lost(self, error):
        self.answered.set()
        self.hello.set()
        self.ended()

    def write(self, data):
        self.waiting += data
        self.pump()

    def pump(self):
        while self.waiting and self.answered.is_set() and not self.over.is_set():
            room = min(self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size, len(self.waiting))
            if room == 0:
                break
            self.h2.send_data(1, bytes(self.waiting[:room]))
            del self.waiting[:room]
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def finish(self):
        self.transport.close()

    async def drop(self):
        self.transport.abort()


class Three(Framed, QuicConnectionProtocol):
    """`wsproto` over `aioquic`: extended CONNECT of RFC 9220."""

    root = None

    @classmethod
    async def open(cls, port, path, more=()):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
        configuration.load_verify_locations(cls.root)
        context = connect_quic(HOST, port, configuration=configuration, create_protocol=cls)
        self = await context.__aenter__()
        self.context = context
        self.begin()
        self.answered, self.status, self.stream = asyncio.Event(), None, self._quic.get_next_available_stream_id()
        self.http = H3Connection(self._quic)
        await self.settings.wait()
        self.offered = (self.http.received_settings or {}).get(8)
        head = [(n.encode(), v.encode()) for n, v in connect_head("https", path, more)]
        self.http.send_headers(self.stream, head)
        self.transmit()
        await self.answered.wait()
        if self.status != "200":
            raise ConnectionError(f"status {self.status}")
        return self

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http, self.early, self.settings = None, [], asyncio.Event()

    def quic_event_received(self, event):
        if self.http is None:
            self.early.append(event)
            return
        for old in self.early:
            self.http.handle_event(old)
        self.early = []
        if isinstance(event, StreamReset):
            self.answered.set()
            self.ended()
        for got in self.http.handle_event(event):
            if isinstance(got, h3.HeadersReceived):
                self.status = dict(got.headers)[b":status"].decode()
                self.answered.set()
            elif isinstance(got, h3.DataReceived):
                self.arrived(got.data)
            if getattr(got, "stream_ended", False):
                self.ended()
        if self.http.received_settings is not None:
            self.settings.set()

    def write(self, data):
        if not self.over.is_set():
            self.http.send_data(self.stream, bytes(data), False)
            self.transmit()

    def finish(self):
        self._quic.close(0x100)
        self.transmit()

    async def drop(self):
        self.over.set()
        self._quic.reset_stream(self.stream, 0x10C)
        self._quic.stop_stream(self.stream, 0x10C)
        self.transmit()


# --- cases


def report(case, ok, detail=""):
    print(json.dumps({"case": case, "ok": bool(ok), "detail": str(detail)[:300]}), flush=True)


def cases(kind, port, place):
    """name and coroutine; each says whether it is content, or how not."""
    open_at = lambda path, **more: kind.open(port, path, **more)

    async def echo(message):
        ws = await open_at("/")
        await ws.send(message)
        got = await ws.receive()
        assert got == message, f"{got[:50]!r}"
        assert await ws.close(1000) == 1000

    for size in SIZES:
        yield f"text of {size}", lambda size=size: echo("x" * size)
        yield f"binary of {size}", lambda size=size: echo(b"\xff" * size)
    yield "text beyond ASCII", lambda: echo("ü→\U0001f4a9\0")
    yield "a binary message of 1 MiB", lambda: echo(LARGE)

    async def large():
        ws = await open_at("/large")
        assert await ws.receive() == LARGE

    yield "1 MiB from the server", large

    async def fragments():
        ws = await open_at("/")
        await ws.fragments(["a", "", "b", "ccc"])
        assert await ws.receive() == "abccc"
        await ws.fragments([b"1" * 70_000, b"2" * 70_000])
        assert await ws.receive() == b"1" * 70_000 + b"2" * 70_000
        ws = await open_at("/fragments")
        assert (await ws.receive(), await ws.receive()) == ("one two three", b"122")

    yield "fragments", fragments

    async def pings():
        ws = await open_at("/")
        await ws.ping(b"hello")
        await ws.ping(b"")
        await ws.ping(b"x" * 125)
        await ws.send("after")
        assert await ws.receive() == "after"
        ws = await open_at("/ping")
        assert await ws.receive() == "answered"

    yield "ping and pong both ways", pings

    async def first():
        ws = await open_at("/first")
        assert await ws.receive() == "welcome"
        await ws.send("thanks")
        assert await ws.receive() == "thanks"

    yield "the server speaks first", first

    async def many():
        ws = await open_at("/")
        for n in range(500):
            await ws.send(str(n))
        assert [await ws.receive() for _ in range(500)] == [str(n) for n in range(500)]

    yield "many messages in order", many

    async def side_by_side():
        async def one(n):
            ws = await open_at("/")
            await ws.send(f"{n}")
            assert await ws.receive() == f"{n}"
            await ws.close(1000)

        await asyncio.gather(*(one(n) for n in range(20)))

    yield "many at once", side_by_side

    async def closed_by_server(code):
        ws = await open_at(f"/close/{code}")
        got = await ws.closed()
        assert got == code, got

    async def closed_by_client(code):
        key = f"{place}-{code}"
        ws = await open_at(f"/remember/{key}")
        await ws.close(code)
        recall = await open_at(f"/recall/{key}")
        got = json.loads(await recall.receive())
        assert got == code, got

    for code in CODES:
        yield f"close {code} by the server", lambda code=code: closed_by_server(code)
        if code != 1010 or kind is not One:
            yield f"close {code} by the client", lambda code=code: closed_by_client(code)

    async def dropped_by_server():
        ws = await open_at("/drop")
        await ws.send("go")
        got = await ws.closed()
        assert got == 1006, got

    yield "the server vanishes", dropped_by_server

    async def dropped_by_client():
        ws = await open_at(f"/remember/{place}-dropped")
        await ws.send("here")
        assert await ws.receive() == "here"
        await ws.drop()
        recall = await open_at(f"/recall/{place}-dropped")
        got = json.loads(await recall.receive())
        assert got is None, got

    yield "the client vanishes", dropped_by_client

    async def refused():
        try:
            await open_at("/refuse")
        except (ConnectionError, websockets.exceptions.InvalidStatus) as error:
            assert "403" in str(error), error
        else:
            raise AssertionError("it was let in")

    yield "the server refuses", refused

    async def head():
        more = {"additional_headers": {"x-own": "1"}} if kind is One else {"more": [("x-own", "1")]}
        ws = await open_at("/head", **more)
        fields = json.loads(await ws.receive())
        names = [name for name, _ in fields]
        assert names.count("upgrade") == 1 and names.count("connection") == 1, fields
        assert ["x-own", "1"] in fields and ["sec-websocket-version", "13"] in fields, fields
        assert not [name for name in names if name.startswith(":") or name == "transfer-encoding"], fields

    yield "what the server sees", head
    if kind is One:

        async def subprotocol():
            ws = await open_at("/", subprotocols=["other.test", "chat.test"])
            assert ws.ws.subprotocol == "chat.test", ws.ws.subprotocol

        async def deflate():
            ws = await open_at("/", compression="deflate")
            assert "permessage-deflate" in ws.ws.response.headers["sec-websocket-extensions"]
            await ws.send("x" * 100_000)
            assert await ws.receive() == "x" * 100_000

        yield "a subprotocol is agreed on", subprotocol
        yield "compression is agreed on", deflate
    else:

        async def offered():
            ws = await open_at("/")
            assert ws.offered == 1, ws.offered

        yield "extended CONNECT is offered", offered


async def raw(port, head, more=b""):
    """Sends an upgrade by hand; status and what follows the head of the answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(head.replace(b"\n", b"\r\n") + more)
    answer = await reader.readuntil(b"\r\n\r\n")
    return answer.split()[1].decode(), answer, reader, writer


UPGRADE = b"GET / HTTP/1.1\nhost: h\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n"


def handmade(places):
    """What no library sends."""
    port = places["one"]

    async def accepted():
        status, answer, _, _ = await raw(port, UPGRADE + KEY + b"\n")
        assert status == "101" and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, answer

    yield "the answer to the key of RFC 6455", accepted

    async def early():
        # A masked "hi" in the same segment as the request.
        frame = b"\x81\x82\0\0\0\0hi"
        status, _, reader, _ = await raw(port, UPGRADE + KEY + b"\n", frame)
        assert status == "101" and await reader.readexactly(4) == b"\x81\x02hi"

    yield "a frame right behind the request", early

    async def bytewise():
        _, _, reader, writer = await raw(port, UPGRADE + KEY + b"\n")
        for byte in b"\x81\x82\0\0\0\0hi":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.readexactly(4) == b"\x81\x02hi"

    yield "a frame byte by byte", bytewise

    async def broken(frame):
        _, _, reader, writer = await raw(port, UPGRADE + KEY + b"\n", frame)
        rest = await reader.read()
        assert rest[:4] == b"\x88" + rest[1:2] + b"\x03\xea", rest

    # Frames are the server's business: it is the server that says 1002, and the client hears it.
    yield "an unmasked frame", lambda: broken(b"\x81\x02hi")
    yield "a reserved opcode", lambda: broken(b"\x83\x80\0\0\0\0")
    yield "a reserved bit", lambda: broken(b"\xf1\x80\0\0\0\0")
    yield "a fragmented ping", lambda: broken(b"\x09\x80\0\0\0\0")
    yield "a continuation of nothing", lambda: broken(b"\x80\x80\0\0\0\0")

    async def refused(head, wanted, at=port):
        status, answer, _, _ = await raw(at, head + b"\n")
        assert status == wanted, answer

    yield "no key", lambda: refused(UPGRADE, "400")
    yield "a short key", lambda: refused(UPGRADE + b"sec-websocket-key: abc\n", "400")
    yield "two keys", lambda: refused(UPGRADE + KEY + KEY, "400")
    yield "another version", lambda: refused(UPGRADE.replace(b"13", b"8") + KEY, "400")
    yield "no upgrade is allowed here", lambda: refused(UPGRADE + KEY, "403", places["closed"])
    yield "another upgrade", lambda: refused(UPGRADE.replace(b"websocket", b"tea") + KEY, "403")
    yield "no token in connection", lambda: refused(UPGRADE.replace(b"Upgrade\n", b"keep-alive\n") + KEY, "426")

    async def idle():
        # Silence of the server counts as well, and a busy machine may make it silent before it agrees.
        while True:
            status, _, reader, _ = await raw(places["idle"], UPGRADE + KEY + b"\n")
            if status not in ("408", "504"):
                break
        assert status == "101" and await reader.read() == b""

    yield "silence ends it where that is asked for", idle

    async def half():
        # The client closes its half after a close frame; the server's answer still comes.
        _, _, reader, writer = await raw(port, UPGRADE + KEY + b"\n", b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8")
        writer.write_eof()
        got = await reader.read()
        assert got.endswith(b"\x88\x02\x03\xe8"), got

    yield "the client closes its half first", half


async def play(name, make):
    try:
        await asyncio.wait_for(make(), PATIENCE)
        report(name, True)
    except BaseException as error:  # whatever it is, it is the case's result
        report(name, False, f"{type(error).__name__}: {error}")


async def client(places, root):
    quiet()
    Three.root = root
    for place, kind in (("one", One), ("pair", One), ("two", Two), ("three", Three)):
        for name, make in cases(kind, places[place], place):
            await play(f"{place}: {name}", make)
    for name, make in handmade(places):
        await play(f"by hand: {name}", make)
    report("end", True)
    sys.stdout.flush()
    # Clients whose case is over may still hold connections; nobody waits for them.
    os._exit(0)


if sys.argv[1] == "server":
    asyncio.run(server())
else:
    given = dict(pair.split("=") for pair in sys.argv[2:-1])
    asyncio.run(client({name: int(port) for name, port in given.items()}, sys.argv[-1]))
