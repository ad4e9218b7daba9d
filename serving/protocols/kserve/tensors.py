"""Tensors of the Open Inference Protocol, as JSON or in its binary extension, to and from values.

Source: kserve.github.io/website, Open Inference Protocol (V2); github.com/triton-inference-server, binary tensor data extension.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from churn.contract import SCORED, Column, Flag, Integer, Real, Text
from serving.problems import Invalid, TooLarge
from serving.schemas import renamed

WHOLE = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
FRACTIONS = ("FP64", "FP32")
DTYPES = {
    "BOOL": "?",
    "FP32": "<f4",
    "FP64": "<f8",
    **{each: f"<{each[0].lower()}{int(each[3 + (each[0] == 'U') :]) // 8}" for each in WHOLE},
}
"""The little-endian NumPy type of each datatype of a fixed size."""

COLUMNS = {each.name: each for each in SCORED}


class Input(BaseModel):
    """One column: `shape` [n] or [n, 1]; values in `data`, or as many bytes after the JSON as `binary_data_size` says."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1, max_length=2, fail_fast=True)]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Annotated[list[Any] | None, Field(description="Absent in the binary extension")] = None


def datatypes(column: Column) -> tuple[str, ...]:
    """The datatypes that a column may come in; the first is the one to prefer."""
    match column.kind:
        case Integer() if not column.nullable:
            return (*WHOLE, *FRACTIONS)
        case Integer() | Real():  # a whole number that may be null has NaN for it
            return (*FRACTIONS, *WHOLE)
        case Flag():
            return ("BOOL",)
        case Text():
            return ("BYTES", *WHOLE)
        case _:
            return ("BYTES",)


def rows_of(inputs: Sequence[Input], binary: bytes, limit: int) -> list[dict[str, Any]]:
    """One dict of column → value per row. Every size is checked before anything of that size is made.

    Raises:
        Invalid: an input is unknown, or not what its shape, its datatype or its size say.
        TooLarge: more than `limit` rows.
    """
    names = [each.name for each in inputs]
    if len(set(names)) < len(names):
        raise Invalid("inputs: one name is given twice; give each column once")
    count = inputs[0].shape[0]
    for each in inputs:
        _check(each, count)
    chunks = _chunks(inputs, binary)
    columns = {each.name: _values(each, chunk, count) for each, chunk in zip(inputs, chunks, strict=True)}
    if count > limit:
        raise TooLarge(f"{count} rows at once; at most {limit} are taken: send fewer")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check(given: Input, count: int) -> None:
    if given.name not in COLUMNS:
        how = f"the model takes {', '.join(COLUMNS)}"
        raise Invalid(f"inputs: unknown name {given.name[:40]!r}; {renamed([given.name]) or how}")
    if given.datatype not in (allowed := datatypes(COLUMNS[given.name])):
        raise Invalid(f"{given.name}: datatype {given.datatype[:10]!r}; send {' or '.join(allowed)}")
    if given.shape != [count, 1][: len(given.shape)] or not count:
        raise Invalid(f"{given.name}: shape is not [n] or [n, 1] with the same n of at least 1 for all inputs; correct it")


def _chunks(inputs: Sequence[Input], binary: bytes) -> list[bytes | None]:
    """Each input's part of the binary data, None for those whose values are in the JSON."""
    chunks: list[bytes | None] = []
    start = 0
    for each in inputs:
        size = (each.parameters or {}).get("binary_data_size")
        if (size is None) == (each.data is None):
            raise Invalid(f"{each.name}: give either data or the parameter binary_data_size")
        if size is None:
            chunks.append(None)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - start:
            raise Invalid(f"{each.name}: binary_data_size is not the size of data that follows the JSON; correct it")
        chunks.append(binary[start : start + size])
        start += size
    if start != len(binary):
        raise Invalid(f"body: {len(binary) - start} bytes after the JSON belong to no input; correct binary_data_size")
    return chunks


def _values(given: Input, chunk: bytes | None, count: int) -> list[Any]:
    values = _flat(given) if chunk is None else _unpacked(given, chunk, count)
    if len(values) != count:
        raise Invalid(f"{given.name}: {len(values)} values, but the shape says {count}; correct one of them")
    return [None if each != each else each for each in values]  # noqa: PLR0124 - NaN, a tensor's null, differs from itself


def _flat(given: Input) -> list[Any]:
    """The values in the JSON: in one list, or for a shape of [n, 1] in lists of one."""
    data = given.data or []
    if len(given.shape) == 2 and all(isinstance(each, list) and len(each) == 1 for each in data):
        return [each[0] for each in data]
    return data


def _unpacked(given: Input, chunk: bytes, count: int) -> list[Any]:
    if given.datatype == "BYTES":
        return _texts(given.name, chunk)
    kind = np.dtype(DTYPES[given.datatype])
    if len(chunk) != count * kind.itemsize:
        raise Invalid(
            f"{given.name}: {len(chunk)} bytes for {count} values of {kind.itemsize}; correct binary_data_size or shape"
        )
    values: list[Any] = np.frombuffer(chunk, kind).tolist()
    return values


def _texts(name: str, chunk: bytes) -> list[str]:
    """Texts, each after its length in four bytes."""
    texts, start = [], 0
    try:
        while start < len(chunk):
            (size,) = struct.unpack_from("<I", chunk, start)
            start += 4 + size
            if start > len(chunk):
                raise Invalid(f"{name}: a text is longer than its tensor; correct the lengths")
            texts.append(chunk[start - size : start].decode())
    except (struct.error, UnicodeDecodeError):
        raise Invalid(f"{name}: not texts in UTF-8, each after its length in four bytes; correct it") from None
    return texts


def packed(datatype: str, values: Sequence[Any]) -> bytes:
    """The values as the binary extension has them."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text)) + text for text in (each.encode() for each in values))
    return np.array(values, DTYPES[datatype]).tobytes()
