"""Snapshot files of the engine's state: written whole or not at all, read only where every byte and setting fits.

A file is a head, its arrays, and a digest of all before it. The engine's thread and the event loop never come here.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tickcast.durable import sync
from tickcast.errors import BadStore, StoreStalled
from tickcast.settings import Settings
from tickcast.state import Array, Arrays, State

FORMAT = 8  # raised whenever a part of the engine remembers something else; a test holds the layout
READ = (6, 7, FORMAT)  # of 6 the tally is taken over (`put_back_tally`), of both the book (`as_now`)
MAGIC = b"tickcast"
HEAD = struct.Struct("<8sII")  # magic, format, bytes of the JSON after it
ALIGN, DIGEST_BYTES = 64, 32
KEPT = 2
NAME = re.compile(r"state-(\d+)\.snapshot")
DECIDING = {  # sections and settings that the state depends on
    "bars", "codec", "features", "forecast", "model", "quality", "score", "symbols", "uncertainty", "window",
    "runtime.deterministic", "inference.bias_correction",
}  # fmt: skip
NOT_DECIDING = {  # of those sections: what may change and the state still is what these ticks make of it
    "bars.history", "bars.idle_ms", "features.publish", "forecast.deadline_ms", "forecast.expires_bars",
    "forecast.overload", "score.postmortems_a_day", "score.publish_every_s", "symbols.limit", "symbols.silent_ms",
    "symbols.new_per_minute",
}  # fmt: skip


class StoreMark(NamedTuple):
    """Which store it is, and how far each partition has been stored there."""

    id: str
    positions: Mapping[tuple[str, int], int]


class FoundSnapshot(NamedTuple):
    """`refused` says of every newer file, and of all where there is no state, why it was not taken."""

    state: State | None
    refused: list[str]


def write(folder: Path, state: State, settings: Settings, *, store: str = "") -> Path:
    """Keep the state as the newest file and drop the oldest; where the disk takes nothing, what is there stays."""
    fresh = folder / "state.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            for piece in _pieces(state, settings, store):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        kept = _files(folder)
        path = folder / f"state-{_number(kept[0]) + 1 if kept else 1:08d}.snapshot"
        fresh.rename(path)
        sync(folder)
        for old in kept[KEPT - 1 :]:
            old.unlink()
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise StoreStalled(
            f"no snapshot can be written to {folder}: {error.strerror}",
            remedy="free space for it; a restart goes on from the one before",
        ) from None
    return path


def newest_valid(
    folder: Path, settings: Settings, *, not_beyond: Mapping[tuple[str, int], int], beside: StoreMark | None = None
) -> FoundSnapshot:
    """The newest state that was made with these settings and reaches no further than the committed positions, nor than
    the store that it was made beside, if it is this one: that has lost rows since."""
    refused = []
    for path in _files(folder):
        try:
            state, theirs, store = _read(path)
            _must_fit(theirs, _deciding(settings))
            _must_be_committed(state, not_beyond)
            if beside is not None and store == beside.id:
                _must_be_stored(state, beside.positions)
        except (BadStore, OSError) as problem:
            refused.append(f"{path.name} {problem}")
        else:
            return FoundSnapshot(state, refused)
    return FoundSnapshot(None, refused)


def drop(folder: Path) -> None:
    """Delete all of them: what they hold is no longer what their reader owns."""
    for path in _files(folder):
        path.unlink()


def _pieces(state: State, settings: Settings, store: str) -> Iterator[Any]:
    """The file's bytes, in order; arrays as they lie in memory, so that nothing is copied."""
    arrays = {name: np.ascontiguousarray(array) for name, array in state.arrays.items()}
    described = [
        [name, np.lib.format.dtype_to_descr(array.dtype), array.shape, array.nbytes] for name, array in arrays.items()
    ]
    facts = {"settings": _deciding(settings), "store": store, "facts": state.facts, "arrays": described}
    head = json.dumps(facts).encode()
    head += b" " * (-(HEAD.size + len(head)) % ALIGN)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for piece in (HEAD.pack(MAGIC, FORMAT, len(head)), head, *_padded(arrays.values())):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _padded(arrays: Any) -> Iterator[Any]:
    for array in arrays:
        yield array.reshape(-1).view(np.uint8)
        yield bytes(-array.nbytes % ALIGN)


def _read(path: Path) -> tuple[State, dict[str, Any], str]:
    """The state, and the settings and the store that it was made with."""
    data = np.fromfile(path, np.uint8)
    if len(data) < HEAD.size + DIGEST_BYTES:
        raise BadStore("is torn: it ends within its head")
    magic, number, length = HEAD.unpack(data[: HEAD.size].tobytes())
    if magic != MAGIC:
        raise BadStore("is no snapshot")
    if number not in READ:
        raise BadStore(f"has format {number}, this version reads {READ[0]} to {FORMAT}")
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:].tobytes()
    if hashlib.blake2b(body.data, digest_size=DIGEST_BYTES).digest() != digest:
        raise BadStore("is torn or damaged: its digest differs")
    head = json.loads(body[HEAD.size : HEAD.size + length].tobytes())
    state = State(_arrays(body[HEAD.size + length :], head["arrays"]), head["facts"])
    return state, head["settings"], head.get("store", "")


def _arrays(body: Array, described: list[Any]) -> Arrays:
    arrays, at = {}, 0
    for name, descr, shape, size in described:
        dtype = np.lib.format.descr_to_dtype([tuple(field) for field in descr] if isinstance(descr, list) else descr)
        arrays[name] = body[at : at + size].view(dtype).reshape(shape)
        at += size + -size % ALIGN
    return arrays


def _deciding(settings: Settings) -> dict[str, Any]:
    """Every setting that the state depends on, by its dotted name."""
    sections = settings.model_dump(mode="json")
    flat = {(section, f"{section}.{key}"): value for section, keys in sections.items() for key, value in keys.items()}
    return {key: flat[section, key] for section, key in flat if {section, key} & DECIDING and key not in NOT_DECIDING}


def _must_fit(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """A setting that came after the file was written has the default in it: as if it were not there."""
    theirs = {**_deciding(Settings()), **theirs}
    changed = [
        f"{key} was {theirs.get(key)}, is {ours.get(key)}"
        for key in sorted({*theirs, *ours})
        if json.dumps(theirs.get(key)) != json.dumps(ours.get(key))  # as text: the order of groups decides
    ]
    if changed:
        raise BadStore(f"was made with other settings: {'; '.join(changed)}")


def _must_be_committed(state: State, not_beyond: Mapping[tuple[str, int], int]) -> None:
    for source, position in state.positions.items():
        if position > not_beyond.get(source, 0):
            raise BadStore(f"has read {source} up to {position}, committed is {not_beyond.get(source, 0)}")


def _must_be_stored(state: State, positions: Mapping[tuple[str, int], int]) -> None:
    for source, position in state.positions.items():
        if position > positions.get(source, 0):
            raise BadStore(
                f"is ahead of the store, which has lost rows: it has read {source} up to {position}, stored is "
                f"{positions.get(source, 0)}"
            )


def _files(folder: Path) -> list[Path]:
    """Newest first; leftovers under temporary names are none."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    return int(found[1]) if found else 0
