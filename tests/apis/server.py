"""A real HTTP/1.1 server on loopback whose every answer can be spoilt on purpose.

It is strict: a request that the published schema does not allow is answered as the API would, and
written down in `violations`, which tests expect to stay empty.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def endpoint(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Reply:
    """An answer before it is sent, and what is to be done to it on the wire.

    Attributes:
        cut: send only so many bytes of the body, and close.
        reset: close with a reset instead of an answer.
        drip: seconds before each byte, headers included if `drip_headers`.
        hang: seconds before anything.
    """

    status: int = 200
    document: Any = None
    body: bytes | None = None
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    drip: float = 0.0
    drip_headers: bool = False
    hang: float = 0.0

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps(self.document, ensure_ascii=False).encode()


Fault = Callable[[Request, Reply], Reply]
"""Makes another answer out of the right one."""


class Violation(Exception):
    """The request is not one that the schema allows."""

    def __init__(self, status: int, document: Any, why: str) -> None:
        super().__init__(why)
        self.status, self.document = status, document


class LocalApi:
    """One server. `handle` is what it knows; scripted faults spoil its answers.

    Attributes:
        latency: seconds before each answer.
        requests: every request that came.
        violations: what was wrong with requests.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self._once: dict[str, deque[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle(self, request: Request) -> Reply:
        raise NotImplementedError

    def spoil(self, endpoint: str, *faults: Fault | None) -> None:
        """The next answers of an endpoint (`GET /v2/profiles`), one fault each; None is none."""
        self._once.setdefault(endpoint, deque()).extend(faults)

    def always(self, endpoint: str, fault: Fault) -> None:
        """Every answer of an endpoint from now on."""
        self._always[endpoint] = fault

    def heal(self) -> None:
        """No more faults, and nothing remembered."""
        self._once.clear()
        self._always.clear()
        self.requests.clear()
        self.violations.clear()

    def count(self, endpoint: str) -> int:
        """How many requests an endpoint has had."""
        return sum(request.endpoint == endpoint for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> asyncio.Server:
            return await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)

        self._server = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            assert self._server is not None
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await self._read(reader):
                reply = self._answer(request)
                await asyncio.sleep(self.latency + reply.hang)
                if not await self._write(writer, reply):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, value in (line.split(":", 1) for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        query = {
            name: values[-1]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        return Request(method, unquote(parts.path), query, headers, body)

    def _answer(self, request: Request) -> Reply:
        self.requests.append(request)
        try:
            reply = self.handle(request)
        except Violation as wrong:
            self.violations.append(f"{request.endpoint}: {wrong}")
            reply = Reply(wrong.status, wrong.document)
        queue = self._once.get(request.endpoint)
        fault = queue.popleft() if queue else self._always.get(request.endpoint)
        return fault(request, reply) if fault else reply

    async def _write(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        """Send the answer; False where the connection is not to be used again."""
        if reply.reset:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        body = reply.payload()
        headers = {
            "Content-Type": reply.media_type,
            "Content-Length": str(len(body)),
            "x-amzn-RequestId": f"request-{len(self.requests)}",
            **reply.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        raw_head = f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode("latin-1")
        if reply.drip:
            slow = raw_head + body if reply.drip_headers else body
            writer.write(b"" if reply.drip_headers else raw_head)
            for byte in slow:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(reply.drip)
            return True
        writer.write(raw_head + (body if reply.cut is None else body[: reply.cut]))
        await writer.drain()
        return reply.cut is None


def require(condition: bool, why: str, status: int = 400, document: Any = None) -> None:
    """The schema wants this of a request."""
    if not condition:
        raise Violation(status, document or {"code": str(status), "details": why}, why)


def exactly(found: Iterable[str], allowed: Iterable[str], what: str) -> None:
    """No other names than those of the schema."""
    extra = sorted(set(found) - set(allowed))
    require(not extra, f"{what} {extra} are not in the schema")


# Faults of the transport and of any API.


def status(
    code: int, document: Any = None, media_type: str = "application/json", **headers: str
) -> Fault:
    """Another status, with the error's document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, reply: Reply(
        code, document or {"code": str(code), "details": "as scripted"}, None, media_type, named
    )


def too_many(retry_after: str | None = None) -> Fault:
    """429, asking to wait, or not saying how long."""
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    said = {"errors": [{"errorCode": "THROTTLED", "errorId": 1, "errorMessage": "slow down"}]}
    return status(429, said, **headers)


def reset(request: Request, reply: Reply) -> Reply:
    """The connection is reset."""
    return Reply(reset=True)


def truncated(request: Request, reply: Reply) -> Reply:
    """The body ends before its length is reached."""
    reply.cut = max(len(reply.payload()) // 2, 1)
    return reply


def half_json(request: Request, reply: Reply) -> Reply:
    """The JSON is cut off, and the length says so."""
    reply.body = reply.payload()[: len(reply.payload()) // 2]
    return reply


def html(request: Request, reply: Reply) -> Reply:
    """A page of a proxy, with status 200, that even echoes the token."""
    token = request.headers.get("authorization", "")
    return Reply(200, None, f"<html><p>Sign in</p>{token}</html>".encode(), "text/html")


def empty(request: Request, reply: Reply) -> Reply:
    """Status 200 and nothing."""
    return Reply(200, None, b"")


def slow(seconds: float, *, headers: bool = False) -> Fault:
    """A byte at a time."""

    def drip(request: Request, reply: Reply) -> Reply:
        reply.drip, reply.drip_headers = seconds, headers
        return reply

    return drip


def hanging(seconds: float) -> Fault:
    """Nothing for a while."""

    def hang(request: Request, reply: Reply) -> Reply:
        reply.hang = seconds
        return reply

    return hang


def gzip_bomb(megabytes: int) -> Fault:
    """Little on the wire, a lot in memory."""
    packed = gzip.compress(b" " * (megabytes * 1024 * 1024))
    return lambda request, reply: Reply(
        200, None, packed, "application/json", {"Content-Encoding": "gzip"}
    )


def gzipped(request: Request, reply: Reply) -> Reply:
    """The right answer, compressed."""
    packed = gzip.compress(reply.payload())
    return Reply(reply.status, None, packed, reply.media_type, {"Content-Encoding": "gzip"})


def redirect(location: str) -> Fault:
    """Another address."""
    return status(302, {"message": "elsewhere"}, Location=location)


def changed(change: Callable[[Any], Any]) -> Fault:
    """The right answer with its document changed."""

    def spoil(request: Request, reply: Reply) -> Reply:
        reply.document = change(reply.document)
        return reply

    return spoil


ANYWHERE: dict[str, Fault] = {
    **{str(code): status(code) for code in (400, 401, 403, 404, 500, 502, 503, 504)},
    "429": too_many(),
    "429 for long": too_many("500"),
    "reset": reset,
    "cut off": truncated,
    "half JSON": half_json,
    "HTML": html,
    "empty": empty,
    "drip": slow(0.1),
    "bomb": gzip_bomb(8),
    "redirect": redirect("http://localhost:1/"),
    "an object": changed(lambda _: {}),
}
"""What may come in place of any answer."""
