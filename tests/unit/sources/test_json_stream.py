"""Streaming JSON: the same values as reading it at once, and an error wherever that has one."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.sources import json_stream
from flows.sources.json_stream import BrokenJson, stream_document

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=[1, 7, 1 << 20])
def chunk(request, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", request.param)


def streamed(data: bytes):
    members, elements = {}, []
    for value in stream_document(io.BytesIO(data), "rows"):
        if value.key == "rows":
            assert value.number == len(elements) + 1
            assert json.loads(value.text, strict=False) == value.value
            elements.append(value.value)
        else:
            members[value.key] = value.value
    return {**members, "rows": elements}


@pytest.mark.usefixtures("chunk")
@given(
    st.dictionaries(st.text(), values, max_size=3),
    st.lists(values, max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_a_stream_gives_what_the_whole_gives(members, rows, indent, ascii_only):
    document = {**members, "rows": rows}
    data = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    if ascii_only or not any("\ud800" <= letter <= "\udfff" for letter in str(document)):
        assert streamed(data) == document


@pytest.mark.usefixtures("chunk")
@given(st.lists(values, min_size=1, max_size=3), st.data())
def test_a_cut_document_is_broken(rows, data):
    text = json.dumps({"first": 1, "rows": rows})
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BrokenJson):
        streamed(text[:cut].encode())


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"other": 1}',
        '{"rows": {}}',
        '{"rows": 1}',
        '{"rows": [1,]}',
        '{"rows": [1 2]}',
        '{"rows": [], }',
        '{"rows": []} x',
        '{"rows": []}{}',
        '{"rows": [], "rows": []}',
        '{"a": 1, "a": 1, "rows": []}',
        "{rows: []}",
        '{"rows" []}',
        '{"rows": [{"a": tru}]}',
        '{"rows": [' + "[" * 100_000,
        '{"rows": ["' + "x" * 300,
    ],
)
def test_broken_structure_raises(text):
    with pytest.raises(BrokenJson, match="at character"):
        streamed(text.encode())


def test_what_json_forbids_comes_through_marked():
    text = '{"rows": [NaN, 1e400, "\\ud800", "\\u0000", {"a": 1, "a": 2}, "tab\there", 3]}'
    found = list(stream_document(io.BytesIO(text.encode()), "rows"))
    assert [value.text for value in found] == [
        "NaN", "1e400", '"\\ud800"', '"\\u0000"', '{"a": 1, "a": 2}', '"tab\there"', "3",
    ]  # fmt: skip
    assert [value.repeated for value in found] == [None] * 4 + ["a"] + [None] * 2


def test_an_integer_of_thousands_of_digits_is_no_reason_to_stop():
    (value,) = stream_document(io.BytesIO(b'{"rows": [' + b"9" * 5000 + b"]}"), "rows")
    assert value.value == float("inf")


def test_memory_is_that_of_an_element():
    source = _Endless(100_000)
    longest = 0
    for value in stream_document(source, "rows"):  # type: ignore[arg-type]
        longest = max(longest, source.given - source.taken)
        source.taken += len(value.text)
    assert source.taken > 100_000 * 100
    assert longest < 3 << 20


def test_an_element_longer_than_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(json_stream, "ELEMENT_LIMIT", 1000)
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 100)
    data = b'{"rows": ["' + b"x" * 5000 + b'"]}'
    with pytest.raises(BrokenJson, match="longer than 1000"):
        list(stream_document(io.BytesIO(data), "rows"))


class _Endless:
    """A long document that is made while it is read."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.given = self.taken = 0
        self._made = self._make()
        self._left = b""

    def _make(self):
        yield b'{"rows": ['
        for number in range(self._rows):
            yield (b"," if number else b"") + b'{"query": "' + b"x" * 100 + b'"}'
        yield b"]}"

    def read(self, size):
        while len(self._left) < size and (piece := next(self._made, b"")):
            self._left += piece
        data, self._left = self._left[:size], self._left[size:]
        self.given += len(data)
        return data
