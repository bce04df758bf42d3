"""A JSON document as a stream: its members one by one, and one long array element by element.

The text slides through a buffer, so that a document of any size takes the memory of its largest
element. What JSON forbids but Python reads (NaN, Infinity, repeated keys, control characters)
comes through, marked where it must be, for whoever judges the element; broken structure raises.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

CHUNK_BYTES = 1 << 20
ELEMENT_LIMIT = 32 << 20
"""How long one element may be, in characters."""

_LONGEST_TOKEN = 16
_WHITESPACE = " \t\n\r"
_MORE_OF_A_NUMBER = ("", *"0123456789.eE+-")
"""What may follow a number that the buffer's end has cut into a shorter one."""


class BrokenJson(ValueError):
    """The text is not JSON, or not as it must be; says what and where."""


class Value(NamedTuple):
    """One value of a document.

    Attributes:
        key: the member of the document that it is, or is an element of.
        number: of the element, from 1; None for a member that is not streamed.
        value: as Python reads it.
        text: as it was delivered.
        repeated: a key that is in it twice, or None.
    """

    key: str
    number: int | None
    value: Any
    text: str
    repeated: str | None


def stream_document(source: BinaryIO, array: str) -> Iterator[Value]:
    """The members of the document in their order; the member `array` element by element.

    Raises `BrokenJson` where the text is not one JSON object, where `array` is missing or is not
    an array, and where a member is there twice.
    """
    text = _SlidingText(source)
    text.expect("{")
    seen: set[str] = set()
    if text.peek() == "}":
        text.expect("}")
    else:
        while True:
            if text.peek() != '"':
                raise text.broken("the name of a member is expected")
            key = text.value("", None).value
            if key in seen:
                raise text.broken(f"{json.dumps(key)} is there twice")
            seen.add(key)
            text.expect(":")
            if key == array:
                yield from _stream_array(text, key)
            else:
                yield text.value(key, None)
            if text.expect(",}") == "}":
                break
    if array not in seen:
        raise text.broken(f"{array} is missing")
    if text.peek():
        raise text.broken("there is more after the end of the document")


def _stream_array(text: _SlidingText, key: str) -> Iterator[Value]:
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return
    number = 0
    while True:
        number += 1
        yield text.value(key, number)
        if text.expect(",]") == "]":
            return


class _SlidingText:
    """The part of a document that is being read; what was read is let go."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._as_text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._at = 0
        self._behind = 0
        self._ended = False
        self._repeated: str | None = None
        self._decode = json.JSONDecoder(object_pairs_hook=self._object, strict=False).raw_decode
        self._decode_any = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=float, strict=False
        ).raw_decode

    def broken(self, what: str) -> BrokenJson:
        """The error for what stands here."""
        return BrokenJson(f"{what} at character {self._behind + self._at + 1}")

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the document."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _WHITESPACE:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._fill()

    def expect(self, one_of: str) -> str:
        """Take the next character, which must be one of these."""
        found = self.peek()
        if not found:
            raise self.broken("the document ends too early")
        if found not in one_of:
            raise self.broken(f"{' or '.join(one_of)} is expected and {found!a} found")
        self._at += 1
        return found

    def value(self, key: str, number: int | None) -> Value:
        """Take the next value, whatever it is."""
        self.peek()
        while True:
            self._repeated = None
            try:
                value, end = self._decoded()
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    self._at = error.pos
                    raise self.broken(error.msg) from error
            except RecursionError as error:
                raise self.broken("it is nested too deeply") from error
            else:
                if self._ended or self._text[end : end + 1] not in _MORE_OF_A_NUMBER:
                    delivered = self._text[self._at : end]
                    self._at = end
                    return Value(key, number, value, delivered, self._repeated)
            if len(self._text) - self._at > ELEMENT_LIMIT:
                raise self.broken(f"an element longer than {ELEMENT_LIMIT} characters begins")
            self._fill()

    def _decoded(self) -> tuple[Any, int]:
        """The value that stands here and where it ends.

        Python refuses to read integers of thousands of digits; as floats they are out of range.
        """
        try:
            return self._decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return self._decode_any(self._text, self._at)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could mend it: the end of the buffer came in the middle of a value."""
        near_end = error.pos >= len(self._text) - _LONGEST_TOKEN
        return near_end or error.msg.startswith("Unterminated string")

    def _fill(self) -> None:
        left = self._text[self._at :]
        chunk = self._source.read(max(CHUNK_BYTES, len(left)))
        self._ended = not chunk
        self._behind += self._at
        self._text = left + self._as_text(chunk, final=not chunk)
        self._at = 0

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            self._repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        return members
