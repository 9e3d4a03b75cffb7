"""A model as records of the compacted topic `models`, and back. It reads and writes no topic.

Keys: `NAME/SHA256/CHUNK.CHUNKS` holds a piece of a file, `NAME/DIGEST` the card of a model, written after its pieces,
`@ROUTE` which model has a route. A record without a value takes its key back.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from tickcast.engine.inference.model_folder import (
    CARD,
    MAX_CARD_BYTES,
    MAX_FILES,
    NAME,
    file_sha256,
    parse_card,
    read_card,
)
from tickcast.errors import BadModel, ModelFault, ModelRefused
from tickcast.records import ModelCard

CHUNK_BYTES = 512 << 10  # a broker takes a message of 1 MB by default
MAX_CHUNK_BYTES = 8 << 20  # what is accepted from others
MAX_HELD_BYTES = 2 << 30  # of pieces, on disk
PIECE = re.compile(r"([^/]+)/([0-9a-f]{64})/(\d{1,6})\.(\d{1,6})")
CARD_KEY = re.compile(r"([^/]+)/([0-9a-f]{64})")
ROUTE = "@"
ROUTE_SCHEMA = 1

Record = tuple[str, bytes | None]  # key and value


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """The value of `@ROUTE`."""

    route: str
    digest: str
    at_ns: int
    schema: int = ROUTE_SCHEMA


class Piece(NamedTuple):
    name: str  # of the model
    sha256: str
    number: int
    pieces: int


def messages(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Key and value of each record, in the order in which they are to be written; the folder was verified."""
    card = read_card(folder)
    for name, sha256 in sorted(card.artefacts.items()):
        path = folder / name
        count = max(1, -(-path.stat().st_size // CHUNK_BYTES))
        with path.open("rb") as file:
            for number in range(count):
                yield f"{card.name}/{sha256}/{number}.{count}", file.read(CHUNK_BYTES)
    yield f"{card.name}/{card.digest}", (folder / CARD).read_bytes()


def route_message(routed: Routed) -> tuple[str, bytes]:
    return f"{ROUTE}{routed.route}", msgspec.json.encode(routed)


def changes(folders: Iterable[Path], routes: Iterable[Routed], held: Mapping[str, str]) -> Iterator[Record]:
    """What makes a topic that holds `held` hold these models and routes and nothing else; tombstones come last."""
    wanted = set()
    for key, value in chain(chain.from_iterable(map(messages, folders)), map(route_message, routes)):
        wanted.add(key)
        if held.get(key) != _fingerprint(value):
            yield key, value
    for key in sorted(held.keys() - wanted):
        yield key, None


def hold(held: dict[str, str], key: str, value: bytes | None) -> None:
    """Note a record that the topic has now. Keys of another shape are nobody's business here: they stay as they are."""
    if not (key.startswith(ROUTE) or _card_key(key) or PIECE.fullmatch(key)):
        return
    if value is None:
        held.pop(key, None)
    else:
        held[key] = _fingerprint(value)


Held = dict[tuple[int, int], int]  # number and count of a piece -> its bytes


class Assembler:
    """Puts models together from records in any order. Pieces wait in `folder`, which is its own and starts empty."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._cards: dict[str, tuple[ModelCard, bytes]] = {}  # by digest
        self._files: dict[tuple[str, str], Held] = {}  # by name and SHA-256, the oldest first
        self.routes: dict[str, str] = {}  # route -> digest, as the topic says

    def take(self, key: str, value: bytes | None) -> None:
        """One record; the last of a key counts. ModelRefused(bad_model_record) or BadModel: it is left out."""
        if key.startswith(ROUTE):
            self._take_route(key[len(ROUTE) :], value)
        elif (of_card := _card_key(key)) is not None:
            self._take_card(*of_card, value)
        elif value is None:
            self._drop(_piece_of(key))
        else:
            self._hold(_piece_of(key), value)

    def assemble(self, digest: str) -> Path:
        """The folder of that model, for `register`; it goes with the assembler's own.

        ModelRefused(bad_model_record): the card or a piece is not here. BadModel: the pieces are not the card's files.
        """
        if digest not in self._cards:
            raise _refused(f"there is no card of {digest[:12]}")
        card, raw = self._cards[digest]
        folder = self._folder / f"model-{digest}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file, sha256 in card.artefacts.items():
            self._join(card.name, sha256, folder / file)
        (folder / CARD).write_bytes(raw)
        return folder

    def _take_route(self, route: str, value: bytes | None) -> None:
        if value is None:
            self.routes.pop(route, None)
            return
        try:
            routed = msgspec.json.decode(value, type=Routed)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _refused(f"the record of route {route[:80]}: {error}") from None
        if (routed.route, routed.schema) != (route, ROUTE_SCHEMA):
            raise _refused(f"the record of route {route[:80]} is of {routed.route[:80]}, schema {routed.schema}")
        self.routes[route] = routed.digest

    def _take_card(self, name: str, digest: str, value: bytes | None) -> None:
        if value is None:
            self._cards.pop(digest, None)
            return
        if len(value) > MAX_CARD_BYTES:
            raise _refused(f"the card of {name} is larger than {MAX_CARD_BYTES} bytes")
        card = parse_card(value, f"the card of {name}")
        if (card.name, card.digest) != (name, digest):
            raise _refused(f"the card of {name} is of {card.name[:80]}, {card.digest[:12]}")
        if len(card.artefacts) > MAX_FILES:
            raise _refused(f"{name} has more than {MAX_FILES} files")
        self._cards[digest] = card, value

    def _hold(self, piece: Piece, value: bytes) -> None:
        if len(value) > MAX_CHUNK_BYTES:
            raise _refused(f"a piece of {piece.name} is larger than {MAX_CHUNK_BYTES} bytes")
        at = piece.name, piece.sha256
        self._place(*at).mkdir(exist_ok=True)
        (self._place(*at) / f"{piece.number}.{piece.pieces}").write_bytes(value)
        self._files.setdefault(at, {})[piece.number, piece.pieces] = len(value)
        self._make_room(at)

    def _make_room(self, coming: tuple[str, str]) -> None:
        """What no card asks for goes first, the oldest of it before the others."""
        wanted = {(card.name, sha256) for card, _ in self._cards.values() for sha256 in card.artefacts.values()}
        strays = [at for at in self._files if at not in wanted and at != coming]
        while sum(sum(held.values()) for held in self._files.values()) > MAX_HELD_BYTES:
            if not strays:
                self._forget(*coming)
                raise _refused(f"{coming[0]} is larger than what is held of models that are not whole")
            self._forget(*strays.pop(0))

    def _drop(self, piece: Piece) -> None:
        held = self._files.get((piece.name, piece.sha256), {})
        if held.pop((piece.number, piece.pieces), None) is not None:
            (self._place(piece.name, piece.sha256) / f"{piece.number}.{piece.pieces}").unlink()

    def _join(self, name: str, sha256: str, target: Path) -> None:
        counts = self._counts(name, sha256)
        if not counts:
            raise _refused(f"pieces of {name}'s {sha256[:12]} are missing")
        for count in counts:
            with target.open("wb") as file:
                for number in range(count):
                    file.write((self._place(name, sha256) / f"{number}.{count}").read_bytes())
            if file_sha256(target) == sha256:
                return
        raise BadModel(f"the pieces of {name}'s {sha256[:12]} are not of that SHA-256", remedy="publish it again")

    def _counts(self, name: str, sha256: str) -> list[int]:
        """In how many pieces the file is here whole; somebody may have cut it otherwise before."""
        held = self._files.get((name, sha256), {})
        counts = sorted({count for _, count in held})
        return [count for count in counts if all((number, count) in held for number in range(count))]

    def _forget(self, name: str, sha256: str) -> None:
        self._files.pop((name, sha256), None)
        shutil.rmtree(self._place(name, sha256), ignore_errors=True)

    def _place(self, name: str, sha256: str) -> Path:
        return self._folder / f"{sha256}-{name}"


def _card_key(key: str) -> tuple[str, str] | None:
    """Name and digest."""
    found = CARD_KEY.fullmatch(key)
    return (found[1], found[2]) if found is not None and NAME.fullmatch(found[1]) else None


def _piece_of(key: str) -> Piece:
    found = PIECE.fullmatch(key)
    if found is None or not NAME.fullmatch(found[1]):
        raise _refused(f"'{key[:80]}' is no key of the topic models")
    piece = Piece(found[1], found[2], int(found[3]), int(found[4]))
    if piece.number >= piece.pieces:
        raise _refused(f"'{key[:80]}' is no piece of a file")
    return piece


def _fingerprint(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def _refused(message: str) -> ModelRefused:
    return ModelRefused(ModelFault.BAD_MODEL_RECORD, message)
