"""Files as byte streams: unzipped, in UTF-8, with every reading error told to the user."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from flows.errors import UnreadableDelivery

GZIP_MAGIC = b"\x1f\x8b"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHUNK = 1 << 20


def unreadable(
    name: str, why: str, next_step: str = "deliver the file again"
) -> UnreadableDelivery:
    """The error for a file that cannot be understood."""
    return UnreadableDelivery(f"{name} cannot be read", why, next_step)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what the operating system, gzip and Arrow raise about a file into an error about it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unreadable(name, f"its gzip data is cut short or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise unreadable(name, f"its text is damaged ({error.reason})") from error
    except (pa.ArrowException, MemoryError) as error:
        raise _damaged(name, error) from error
    except OSError as error:
        if error.errno is None:
            raise _damaged(name, error) from error
        why = error.strerror or str(error)
        raise unreadable(name, why, "check that the file is there and may be read") from error


def _damaged(name: str, error: BaseException) -> UnreadableDelivery:
    told = " ".join(str(error).split())[:300]
    return unreadable(name, f"its contents are damaged ({told})")


@contextmanager
def open_unzipped(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unzipped if they are gzip."""
    with path.open("rb") as file:
        if file.peek(2)[:2] == GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
                yield cast("BinaryIO", unzipped)
        else:
            yield file


@contextmanager
def open_utf8(path: Path, encoding: str = "utf-8", *, marks: bool = False) -> Iterator[BinaryIO]:
    """The file's text as UTF-8 bytes without byte-order mark.

    A byte-order mark says the encoding; without one it is `encoding`. Bytes that are wrong in
    UTF-8, and lone surrogates, are handed on: what to do about them is decided for each row.
    With `marks`, for readers that stop at wrong bytes, each wrong byte is handed on as a
    character of its own until `unmarked` gives it back.
    """
    with open_unzipped(path) as source:
        start = source.read(3)
        for bom, marked in _BOMS:
            if start.startswith(bom):
                start, encoding = start[len(bom) :], marked
                break
        yield cast("BinaryIO", io.BufferedReader(_Utf8(start, source, encoding, marks), _CHUNK))


class _Utf8(io.RawIOBase):
    """Text in any encoding, read as UTF-8."""

    def __init__(self, start: bytes, source: BinaryIO, encoding: str, marks: bool) -> None:
        self._pending = start
        self._source = source
        self._left = b""
        self._ended = False
        on_error = {"utf-8": "sqp-mark", "cp1252": "strict"}.get(encoding, "surrogatepass")
        self._decode = codecs.getincrementaldecoder(encoding)(on_error).decode
        self._passes = encoding == "utf-8" and not marks
        self._on_surrogate = "sqp-mark" if marks else "surrogatepass"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left and not self._ended:
            chunk = self._pending or self._source.read(_CHUNK)
            self._pending = b""
            self._ended = not chunk
            self._left = self._as_utf8(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _as_utf8(self, chunk: bytes) -> bytes:
        if self._passes:
            return chunk
        return self._decode(chunk, final=not chunk).encode("utf-8", self._on_surrogate)


_MARKED = 0x10FF00
_MARK = re.compile(b"\xf4\x8f[\xbe\xbf][\x80-\xbf]")


def _mark(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for wrong bytes: characters at the end of the private use area."""
    if isinstance(error, UnicodeDecodeError):
        return _marks(error.object[error.start : error.end]), error.end
    if isinstance(error, UnicodeEncodeError):
        wrong = error.object[error.start : error.end].encode("utf-8", "surrogatepass")
        return _marks(wrong).encode(), error.end
    raise error


def _marks(wrong: bytes) -> str:
    return "".join(chr(_MARKED + byte) for byte in wrong)


codecs.register_error("sqp-mark", _mark)


def unmarked(text: bytes) -> bytes:
    """Text from a stream with marks, with the wrong bytes that were in it."""
    return _MARK.sub(lambda mark: bytes([ord(mark[0].decode()) - _MARKED]), text)


def has_marks(text: bytes) -> bool:
    """Whether `unmarked` would change a text."""
    return _MARK.search(text) is not None


def is_western(path: Path) -> bool:
    """Whether an unmarked file is in Windows-1252 (as Excel saves it) rather than in UTF-8.

    It is when its bytes are not UTF-8, hold no UTF-8 letter either, and all mean something in
    Windows-1252: one damaged row does not change how the others are read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    meaningless = frozenset("\udc81\udc8d\udc8f\udc90\udc9d")
    wrong = False
    with open_unzipped(path) as source:
        while True:
            chunk = source.read(_CHUNK)
            beyond_ascii = set(decoder.decode(chunk, final=not chunk)) - _ASCII
            if any(not "\udc80" <= letter <= "\udcff" for letter in beyond_ascii):
                return False
            if beyond_ascii & meaningless:
                return False
            wrong = wrong or bool(beyond_ascii)
            if not chunk:
                return wrong


_ASCII = frozenset(map(chr, range(128)))
