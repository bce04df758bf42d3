"""Reading what an API answered: decoded under a cap, parsed strictly, errors of every shape."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

MAX_DEPTH = 64
EXCERPT = 200
SECRET = re.compile(
    r"Atz[a-z]*(?:\||%7C)[^\s\"'&<>]+|amzn1\.oa2-cs\.[\w.\-]+|Bearer\s+\S+", re.IGNORECASE
)
"""What a token or a client's secret looks like, wherever it is echoed."""
SCRUBBED = "\ufffd"
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that JSON can spell and PostgreSQL cannot hold."""


class Unreadable(ValueError):
    """The body is not what the API sends: cut off, not JSON, too deep."""


class TooLarge(ValueError):
    """The decoded body passes the cap."""


async def read_body(chunks: AsyncIterator[bytes], encoding: str, cap: int) -> bytes:
    """The decoded body.

    Args:
        chunks: the body as it is sent.
        encoding: the Content-Encoding; we ask for gzip only.
        cap: bytes after decoding; a bomb is not unpacked further.

    Raises:
        TooLarge: it is larger.
        Unreadable: it is encoded in another way, or cut off.
    """
    kind = encoding.strip().lower()
    if kind not in ("", "identity", "gzip", "x-gzip"):
        raise Unreadable(f"it is encoded as {kind[:20]}, which was not asked for")
    unpack = zlib.decompressobj(31) if "gzip" in kind else None
    body = bytearray()
    async for chunk in chunks:
        if unpack is None:
            body += chunk
        else:
            try:
                body += unpack.decompress(chunk, cap - len(body) + 1)
            except zlib.error as error:
                raise Unreadable("it is not the gzip that it says it is") from error
        if len(body) > cap:
            raise TooLarge(f"it is larger than {cap:,} bytes")
    if unpack is not None and not unpack.eof:
        raise Unreadable("its gzip is cut off")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """The document; characters that cannot be stored are replaced by U+FFFD.

    Raises:
        Unreadable: it is empty, not JSON, or nested too deep; NaN and Infinity are not JSON.
    """
    if not body.strip():
        raise Unreadable("it is empty")
    try:
        document = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error
    return _scrub(document, MAX_DEPTH)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _scrub(value: Any, depth: int) -> Any:
    if depth == 0:
        raise Unreadable(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        return UNSTORABLE.sub(SCRUBBED, value)
    if isinstance(value, list):
        return [_scrub(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {
            UNSTORABLE.sub(SCRUBBED, name): _scrub(item, depth - 1) for name, item in value.items()
        }
    return value


@dataclass(frozen=True)
class ErrorSaid:
    """What an API says of an error: its code, its words, its request's id."""

    code: str | None
    message: str
    request_id: str | None = None


def read_error(body: bytes) -> ErrorSaid:
    """What the body of an error says, in whichever of the known shapes.

    `{code, details}` of the Ads API (`detail` in reports), `{errors: [{errorCode, errorMessage}]}`
    of accounts, `{message, requestId, errors: [{errorType, message}]}` of DSP, and
    `{error, error_description}` of Login with Amazon. What is none of these is told as it is, cut.
    """
    try:
        document = parse_json(body)
    except Unreadable:
        return ErrorSaid(None, _excerpt(body.decode("utf-8", "replace")))
    if not isinstance(document, dict):
        return ErrorSaid(None, _excerpt(json.dumps(document)))
    listed = document.get("errors")
    first = listed[0] if isinstance(listed, list) and listed else {}
    first = first if isinstance(first, dict) else {}
    code = _first(document, "error", "code") or _first(first, "errorCode", "errorType", "code")
    message = (
        _first(document, "error_description", "details", "detail")
        or _first(first, "errorMessage", "message", "details")
        or _first(document, "message")
    )
    return ErrorSaid(
        code,
        message or _excerpt(json.dumps(document)),
        _first(document, "request_id", "requestId"),
    )


def _first(fields: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return _excerpt(str(value))
    return None


def _excerpt(text: str) -> str:
    """One line of at most 200 characters, without secrets."""
    words = " ".join(redact(text).split())
    return words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"


def redact(text: str) -> str:
    """`text` without whatever looks like a token or a client's secret."""
    return SECRET.sub("[redacted]", text)


def without(body: bytes, hidden: Sequence[str]) -> bytes:
    """A body without these values, as they are, escaped for JSON, or encoded for a URL."""
    for value in filter(None, hidden):
        for spelt in (value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)):
            body = body.replace(spelt.encode(), b"[redacted]")
    return body


def excerpt(body: bytes, hidden: Sequence[str] = ()) -> str:
    """The beginning of a body for an error message, on one line and without secrets."""
    return _excerpt(without(body[: 64 * EXCERPT], hidden).decode("utf-8", "replace"))
