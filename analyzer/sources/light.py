"""An ONNX file without its large weights, which are never read: they are named by where they lie.

A model that is analysed exists several times: as it was given, canonical, differentiated, lowered.
Its weights need not; they stay in the file until a session wants them.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from onnx import TensorProto

from analyzer.sources.external_data import LARGE, is_packed, size_of

_GRAPH: Final = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER: Final = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA: Final = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _BYTES = 0, 2  # how a field is written
_FIXED: Final = {1: 8, 5: 4}


class _Field(NamedTuple):
    """A field of a message: where it, its payload and its end lie; its number if it is bytes."""

    number: int
    begin: int
    payload: int
    end: int


def without_weights(data: memoryview, path: Path) -> bytes:
    """The serialised model, its large weights replaced by where they lie in the file.

    Args:
        data: The file.
        path: Of the file.

    Raises:
        ValueError: This is no protobuf message; let protobuf judge it.
    """
    location = os.fspath(path.resolve())

    def tensor(begin: int, end: int) -> bytes:
        return _without_values(data, begin, end, location)

    def graph(begin: int, end: int) -> bytes:
        return _replaced(data, begin, end, _INITIALIZER, tensor)

    return _replaced(data, 0, len(data), _GRAPH, graph)


def _replaced(
    data: memoryview, begin: int, end: int, number: int, replace: Callable[[int, int], bytes]
) -> bytes:
    """A message in which the messages of one field are replaced."""
    pieces: list[bytes | memoryview] = []
    for field in _fields(data, begin, end):
        if field.number != number:
            pieces.append(data[field.begin : field.end])
            continue
        payload = replace(field.payload, field.end)
        pieces += [_varint_of(number << 3 | _BYTES), _varint_of(len(payload)), payload]
    return b"".join(pieces)


def _without_values(data: memoryview, begin: int, end: int, location: str) -> bytes:
    """A tensor that names the place of its values; one that is small or odd is left whole."""
    if end - begin <= LARGE:  # without a look at its fields: there are thousands of these
        return bytes(data[begin:end])
    fields = list(_fields(data, begin, end))
    raw = [field for field in fields if field.number == _RAW_DATA]
    rest = b"".join(data[f.begin : f.end] for f in fields if f.number != _RAW_DATA)
    tensor = TensorProto.FromString(rest)
    length = sum(field.end - field.payload for field in raw)
    if len(raw) != 1 or not LARGE < length == size_of(tensor) or is_packed(tensor):
        return bytes(data[begin:end])
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": location, "offset": str(raw[0].payload), "length": str(length)}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return bytes(tensor.SerializeToString())


def _fields(data: memoryview, begin: int, end: int) -> Iterator[_Field]:
    """The fields of the message that lies between two places."""
    at = begin
    while at < end:
        start = at
        key, at = _varint(data, at)
        payload = at
        wire = key & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _BYTES:
            length, payload = _varint(data, at)
            at = payload + length
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise ValueError(f"no field begins at byte {start}")
        if at > end:
            raise ValueError(f"the field at byte {start} does not end")
        yield _Field(key >> 3 if wire == _BYTES else 0, start, payload, at)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at + shift // 7 >= len(data):
            break
        byte = data[at + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError(f"the number at byte {at} does not end")


def _varint_of(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
