"""Hashes of rows, for telling changed slices and repeated rows, whole columns at a time.

A row's hash has two 64-bit lanes, so that two rows that differ have one of 2^128 chances to be
taken for equal. Every word of a row goes through the finaliser of splitmix64 (Steele, Lea and
Flood, 2014), a bijection in which each bit of the input moves half of the bits of the output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

SEEDS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
NULL = np.uint64(2**64 - 1)
"""What stands for a missing value: no count, price or fraction that is let in has these bits."""


class RowHashes:
    """The hashes of some rows.

    Attributes:
        values: of the key and the values, a `(2, rows)` matrix of lanes.
        contents: of the same and the spelling of the query.
    """

    def __init__(self, rows: pa.Table, value_columns: Iterable[str]) -> None:
        lanes = [np.full(rows.num_rows, seed, dtype=np.uint64) for seed in SEEDS]
        key = digest_words(rows.column("query_digest"))
        for word in (key[:, 0], key[:, 1]):
            _fold(lanes, word)
        for name in value_columns:
            for word in _words(_whole(rows.column(name))):
                _fold(lanes, word)
        self.values = np.stack(lanes)
        for word in _spelling(_whole(rows.column("search_query")), _whole(rows.column("query"))):
            _fold(lanes, word)
        self.contents = np.stack(lanes)


def digest_words(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """A column of 16-byte digests as a `(rows, 2)` matrix of words that sort as the bytes do."""
    fixed = _whole(column.cast(pa.binary(16)))
    words = np.frombuffer(fixed.buffers()[1], dtype=">u8", count=2 * (fixed.offset + len(fixed)))
    return words.reshape(-1, 2)[fixed.offset :].astype(np.uint64)


def slice_digest(sums: Words, row_count: int) -> bytes:
    """The 16-byte digest of a slice: of the sums of its rows' lanes, whatever their order."""
    return hashlib.blake2b(
        sums.tobytes() + row_count.to_bytes(8, "little"), digest_size=16
    ).digest()


def sort_out_duplicates(
    numbers: npt.NDArray[np.int32], key: Words, values: Words
) -> tuple[Mask, Mask, Mask]:
    """Tell rows apart that share a slice and a query digest.

    Args:
        numbers: slice numbers; rows are sorted by slice and query digest.
        key: the rows' query digests, as `digest_words` gives them.
        values: the rows' value hashes, a `(2, rows)` matrix.

    Returns:
        masks of the rows to load, of identical repetitions of a loaded row, and of rows whose
        key came with different values: of those none can be trusted, in whatever order they came.
    """
    same_key = np.zeros(len(numbers), dtype=bool)
    same_key[1:] = (numbers[1:] == numbers[:-1]) & (key[1:] == key[:-1]).all(axis=1)
    if not same_key.any():
        return ~same_key, same_key, same_key.copy()
    differs = np.zeros(len(numbers), dtype=bool)
    differs[1:] = same_key[1:] & (values[:, 1:] != values[:, :-1]).any(axis=0)
    groups = np.cumsum(~same_key)
    conflicting = np.isin(groups, groups[differs])
    return ~same_key & ~conflicting, same_key & ~conflicting, conflicting


def _fold(lanes: list[Words], word: Words) -> None:
    """Mix one more word of each row into its lanes."""
    scratch = np.empty_like(word)
    for lane in lanes:
        np.bitwise_xor(lane, word, out=lane)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.right_shift(lane, np.uint64(shift), out=scratch)
            np.bitwise_xor(lane, scratch, out=lane)
            np.multiply(lane, np.uint64(factor), out=lane)
        np.right_shift(lane, np.uint64(31), out=scratch)
        np.bitwise_xor(lane, scratch, out=lane)


def _words(column: pa.Array) -> Iterator[Words]:
    """The values of a column as 64-bit words: one, or two where it may hold text or money.

    How many depends on the type alone, so that a row's hash does not depend on its neighbours.
    """
    if column.null_count == len(column):
        is_wide = pa.types.is_string(column.type) or pa.types.is_decimal(column.type)
        yield from [np.full(len(column), NULL)] * (2 if is_wide else 1)
        return
    missing = np.asarray(column.is_null()) if column.null_count else None
    for word in _text_words(column) if pa.types.is_string(column.type) else _raw_words(column):
        yield word if missing is None else np.where(missing, NULL, word)


def _raw_words(column: pa.Array) -> Iterator[Words]:
    """The words of a fixed-width column, straight from its buffer."""
    width = column.type.bit_width // 64
    raw = np.frombuffer(column.buffers()[1], dtype=np.uint64)
    matrix = raw[: width * (column.offset + len(column))].reshape(-1, width)[column.offset :]
    for position in range(width):
        yield matrix[:, position]


def _text_words(column: pa.Array) -> Iterator[Words]:
    """Two words of a digest of each text; each distinct text is digested once."""
    encoded = column.fill_null("").dictionary_encode()
    digests = b"".join(
        hashlib.blake2b(text.encode(), digest_size=16).digest()
        for text in encoded.dictionary.to_pylist()
    )
    table = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    codes = np.asarray(encoded.indices)
    yield table[codes, 0]
    yield table[codes, 1]


def _spelling(delivered: pa.Array, normalised: pa.Array) -> Iterator[Words]:
    """The words of the delivered query: zero where it is spelt as the normalised one, whose
    digest is in the hash already."""
    differs = pc.not_equal(delivered, normalised)
    if not pc.any(differs).as_py():
        yield from [np.zeros(len(delivered), dtype=np.uint64)] * 2
        return
    mask = np.asarray(differs)
    for word in _text_words(pc.if_else(differs, delivered, "")):
        yield np.where(mask, word, np.uint64(0))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])
