"""What the bytes of a model's file may be: JSON, safetensors, or an ONNX graph that is whole in itself and ends.

It looks at structure only. Whatever is none of the three is refused, pickles by name; nothing is ever unpickled.
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import NamedTuple

import msgspec

from tickcast.errors import BadModel

SUFFIXES = (".onnx", ".safetensors", ".json")
MAX_HEADER_BYTES = 16 << 20  # of safetensors; and of JSON as a whole
REMEDY = "a model is JSON, safetensors and ONNX; write weights with safetensors.torch.save_file"
ZIP, GZIP = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b"
PROTOCOLS = tuple(bytes([0x80, number]) for number in range(2, 6))  # how a pickle starts

Data = bytes | mmap.mmap


def refuse_foreign(path: Path) -> None:
    """BadModel where a file is not what its name says."""
    if path.suffix not in SUFFIXES:
        raise BadModel(f"{path} is of no kind that a model may hold", remedy=REMEDY)
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise BadModel(f"{path} is empty", remedy=REMEDY)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _refuse(path, data)


def _refuse(path: Path, data: Data) -> None:
    if found := packed_objects(data[:8]):
        raise BadModel(f"{path} is {found}, which could run code when it is opened", remedy=REMEDY)
    check = {".onnx": _is_onnx, ".safetensors": _is_safetensors, ".json": _is_json}[path.suffix]
    if not check(data):
        raise BadModel(f"{path} does not hold what its name says", remedy=REMEDY)
    if path.suffix == ".onnx":
        _refuse_graph(path, data)


def _refuse_graph(path: Path, data: Data) -> None:
    walked = _walk(data)
    if walked.is_elsewhere:
        raise BadModel(f"{path} keeps weights in another file", remedy="save the graph with its weights in it")
    if endless := walked.operators & ENDLESS:
        raise BadModel(f"{path} holds a {endless.pop().decode()}, which need not end", remedy="export it unrolled")
    if walked.called & walked.functions:
        raise BadModel(f"{path} has functions that call functions: it may grow without end", remedy="export it inlined")


def packed_objects(start: bytes) -> str:
    """What a file that starts so is, where that could hold pickled objects; empty for all else."""
    if start.startswith(ZIP):
        return "a zip archive, as torch.save writes"
    if start.startswith(PROTOCOLS):
        return "a pickle"
    return "compressed" if start.startswith(GZIP) else ""


def _is_json(data: Data) -> bool:
    try:
        return len(data) <= MAX_HEADER_BYTES and isinstance(msgspec.json.decode(data[:]), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _is_safetensors(data: Data) -> bool:
    """A length, a JSON object of that length, and tensors that fill the rest without a hole."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        return False
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, dict[str, object]])
        header.pop("__metadata__", None)
        spans = sorted(msgspec.convert([one["data_offsets"] for one in header.values()], list[tuple[int, int]]))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return False
    at = 0
    for begin, end in spans:
        if begin != at or end < begin:
            return False
        at = end
    return at == len(data) - 8 - length


class ByteSpan(NamedTuple):
    """Bytes of a file that are one message."""

    begin: int
    end: int


class Field(NamedTuple):
    number: int
    wire: int
    value: int  # of a number
    span: ByteSpan  # of a message, text or bytes


# Which fields of an ONNX message hold which messages: the way to every tensor. onnx.proto names the numbers.
WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
OPERATOR, FUNCTION_NAME = 4, 1  # of a node, and of a function
ENDLESS = {b"Loop", b"Scan"}  # how often they go round is known when they run
MOST_FIELDS = 4 << 20  # of a file that somebody made to be read for ever
MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
TAG_BYTES = 5  # protocol buffers keep 32 bits of a tag, and drop what is above
IR_VERSION, GRAPH = 1, 7
DATA_LOCATION, EXTERNAL_DATA = 14, 13  # of a tensor
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class _Broken(Exception):
    """Not a protocol buffer."""


def _is_onnx(data: Data) -> bool:
    try:
        numbers = [field.number for field in _fields(data, ByteSpan(0, len(data)))]
    except _Broken:
        return False
    return MODEL_FIELDS.issuperset(numbers) and IR_VERSION in numbers and numbers.count(GRAPH) == 1


@dataclass(slots=True)
class _Walked:
    """What a graph holds, wherever in it; what is broken or without end counts as elsewhere."""

    is_elsewhere: bool = False
    operators: set[bytes] = dataclass_field(default_factory=set)
    functions: set[bytes] = dataclass_field(default_factory=set)
    called: set[bytes] = dataclass_field(default_factory=set)  # operators of nodes within functions


def _walk(data: Data) -> _Walked:
    """Tensors that lie elsewhere, as the runtime would read whatever path they name, and what every node does."""
    found, waiting, left = _Walked(), [("model", ByteSpan(0, len(data)), False)], MOST_FIELDS
    try:
        for kind, span, in_function in waiting:
            for field in _fields(data, span):
                left -= 1
                found.is_elsewhere |= left < 0 or (kind == "tensor" and _is_elsewhere(field))
                if found.is_elsewhere:
                    return found
                _note(found, data, kind, field, in_function=in_function)
                if field.wire == BYTES and field.number in WITHIN[kind]:
                    inner = WITHIN[kind][field.number]
                    waiting.append((inner, field.span, in_function or inner == "function"))
    except _Broken:
        found.is_elsewhere = True
    return found


def _note(found: _Walked, data: Data, kind: str, field: Field, *, in_function: bool) -> None:
    if kind == "node" and field.number == OPERATOR:
        name = data[field.span.begin : field.span.end]
        found.operators.add(name)
        if in_function:
            found.called.add(name)
    elif kind == "function" and field.number == FUNCTION_NAME:
        found.functions.add(data[field.span.begin : field.span.end])


def _is_elsewhere(field: Field) -> bool:
    return field.number == EXTERNAL_DATA or (field.number == DATA_LOCATION and field.value != 0)


def _fields(data: Data, span: ByteSpan) -> Iterator[Field]:
    """The fields of one message; the bytes of a field are stepped over, not read."""
    at = span.begin
    while at < span.end:
        begin = at
        tag, at = _varint(data, at, span.end)
        if tag >> 32 or at - begin > TAG_BYTES:
            raise _Broken
        number, wire, value, inside = tag >> 3, tag & 7, 0, ByteSpan(at, at)
        if wire == VARINT:
            value, at = _varint(data, at, span.end)
        elif wire == BYTES:
            length, at = _varint(data, at, span.end)
            inside = ByteSpan(at, at + length)
            at += length
        elif wire in (FIXED32, FIXED64):
            at += 4 if wire == FIXED32 else 8
        else:
            raise _Broken
        if at > span.end or not number:
            raise _Broken
        yield Field(number, wire, value, inside)


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for place in range(min(10, end - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _Broken
