"""Rows as fixed-width byte images: what digests are taken of and duplicates compared by."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

TEXT_BYTES = 17
"""How wide a text column is in an image: a digest of 16 bytes, and whether it is null."""


def row_images(rows: pa.Table, digests: Bytes, columns: tuple[str, ...]) -> Bytes:
    """One line of bytes a row: its query digest, then each column's value and whether it is null.

    Two rows have equal images exactly when they have equal values in `columns`; text enters as a
    128-bit digest.

    Args:
        digests: the rows' query digests, a `(rows, 16)` byte matrix.

    Returns:
        a `(rows, width)` byte matrix.
    """
    parts = [digests]
    for name in columns:
        column = rows.column(name).combine_chunks()
        parts.append(_values(column))
        if column.null_count:
            parts.append(np.asarray(column.is_null()).astype(np.uint8)[:, None])
        else:
            parts.append(np.zeros((len(column), 1), dtype=np.uint8))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _values(column: pa.Array) -> Bytes:
    """The values of a column as a `(rows, bytes)` matrix; nulls are all zero."""
    if pa.types.is_string(column.type):
        encoded = column.fill_null("").dictionary_encode()
        table = np.frombuffer(
            b"".join(
                hashlib.blake2b(value.encode(), digest_size=16).digest()
                for value in encoded.dictionary.to_pylist()
            ),
            dtype=np.uint8,
        ).reshape(-1, 16)
        return np.asarray(table[np.asarray(encoded.indices)])
    if pa.types.is_decimal(column.type):
        filled = column.fill_null(0) if column.null_count else column
        words = np.frombuffer(filled.buffers()[1], dtype=np.uint8).reshape(-1, 16)
        return words[filled.offset : filled.offset + len(filled)]
    filled = column.fill_null(0) if column.null_count else column
    values: npt.NDArray[np.generic] = np.asarray(filled)
    return values.view(np.uint8).reshape(len(column), -1)


def sort_out_duplicates(numbers: npt.NDArray[np.int32], images: Bytes) -> tuple[Mask, Mask, Mask]:
    """Tell rows apart that share a slice and a query digest.

    Args:
        numbers: slice numbers; rows are sorted by slice and query digest.
        images: the rows' images, the query digest in the first 16 bytes.

    Returns:
        masks of the rows to load, of identical repetitions of a loaded row, and of rows whose
        key came with different values: of those none can be trusted, in whatever order they came.
    """
    total = len(numbers)
    same_key = np.zeros(total, dtype=bool)
    same_key[1:] = (numbers[1:] == numbers[:-1]) & (images[1:, :16] == images[:-1, :16]).all(axis=1)
    if not same_key.any():
        return ~same_key, same_key, same_key.copy()
    groups = np.cumsum(~same_key) - 1
    differs = np.zeros(total, dtype=bool)
    differs[1:] = same_key[1:] & (images[1:] != images[:-1]).any(axis=1)
    conflicting = np.isin(groups, groups[differs])
    return ~same_key & ~conflicting, same_key & ~conflicting, conflicting
