"""A model as records of the compacted topic `models`, and back. It reads and writes no topic.

Keys: `NAME/SHA256/CHUNK.CHUNKS` holds a piece of a file, `NAME` the card of the model that serves under this name,
written after its pieces, `@ROUTE` which model has a route. A record without a value takes its key back.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tickcast.errors import BadModel, ModelFault, ModelRefused
from tickcast.model_folder import CARD, MAX_CARD_BYTES, NAME, file_sha256, parse_card, read_card
from tickcast.records import ModelCard

CHUNK_BYTES = 512 << 10  # a broker takes a message of 1 MB by default
MAX_CHUNK_BYTES = 8 << 20  # what is accepted from others
MAX_HELD_BYTES = 2 << 30  # of pieces, on disk
PIECE = re.compile(r"([^/]+)/([0-9a-f]{64})/(\d{1,6})\.(\d{1,6})")
ROUTE = "@"


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """The value of `@ROUTE`."""

    route: str
    digest: str
    at_ns: int
    schema: int = 1


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
        count = _count(path.stat().st_size)
        with path.open("rb") as file:
            for number in range(count):
                yield f"{card.name}/{sha256}/{number}.{count}", file.read(CHUNK_BYTES)
    yield card.name, (folder / CARD).read_bytes()


def keys(folder: Path) -> list[str]:
    """Of all its records, the card's last: without a value each is its tombstone. Take back no piece that a model
    which stays has too.
    """
    card = read_card(folder)
    sizes = {sha256: (folder / name).stat().st_size for name, sha256 in sorted(card.artefacts.items())}
    pieces = [(sha256, number, _count(size)) for sha256, size in sizes.items() for number in range(_count(size))]
    return [*(f"{card.name}/{sha256}/{number}.{count}" for sha256, number, count in pieces), card.name]


def route_message(route: str, digest: str | None, at_ns: int) -> tuple[str, bytes | None]:
    """Who has the route since then; its tombstone where nobody has."""
    value = None if digest is None else msgspec.json.encode(Routed(route=route, digest=digest, at_ns=at_ns))
    return f"{ROUTE}{route}", value


Held = dict[tuple[int, int], int]  # number and count of a piece -> its bytes


class Assembler:
    """Puts models together from records in any order. Pieces wait in `folder`, which is its own and starts empty."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._cards: dict[str, tuple[ModelCard, bytes]] = {}  # by name; they wait for pieces
        self._files: dict[tuple[str, str], Held] = {}  # by name and SHA-256, the oldest first
        self.routes: dict[str, str] = {}  # route -> digest, as the topic says

    def take(self, key: str, value: bytes | None) -> Path | None:
        """One record. The folder of the model that it makes whole, for `register`; remove it afterwards.

        ModelRefused(bad_model_record) or BadModel: the record is left out, or the pieces of a damaged file are.
        """
        if key.startswith(ROUTE):
            self._take_route(key[len(ROUTE) :], value)
            return None
        if NAME.fullmatch(key):
            return self._take_card(key, value)
        piece = _piece_of(key)
        if value is None:
            self._drop(piece)
            return None
        self._hold(piece, value)
        return self._whole(piece.name)

    def waiting(self) -> dict[str, list[str]]:
        """Digest of each model that is not whole -> the SHA-256 of the files that lack pieces."""
        return {
            card.digest: [sha256 for sha256 in card.artefacts.values() if not self._count(name, sha256)]
            for name, (card, _) in self._cards.items()
        }

    def _take_route(self, route: str, value: bytes | None) -> None:
        if value is None:
            self.routes.pop(route, None)
            return
        try:
            routed = msgspec.json.decode(value, type=Routed)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _refused(f"the record of route {route[:80]}: {error}") from None
        if routed.route != route:
            raise _refused(f"the record of route {route[:80]} is about {routed.route[:80]}")
        self.routes[route] = routed.digest

    def _take_card(self, name: str, value: bytes | None) -> Path | None:
        if value is None:
            self._cards.pop(name, None)
            return None
        if len(value) > MAX_CARD_BYTES:
            raise _refused(f"the card of {name} is larger than {MAX_CARD_BYTES} bytes")
        card = parse_card(value, f"the card of {name}")
        if card.name != name:
            raise _refused(f"the card of {name} is of {card.name[:80]}")
        self._cards[name] = card, value
        return self._whole(name)

    def _hold(self, piece: Piece, value: bytes) -> None:
        if len(value) > MAX_CHUNK_BYTES:
            raise _refused(f"a piece of {piece.name} is larger than {MAX_CHUNK_BYTES} bytes")
        at = piece.name, piece.sha256
        self._place(*at).mkdir(exist_ok=True)
        (self._place(*at) / f"{piece.number}.{piece.pieces}").write_bytes(value)
        self._files.setdefault(at, {})[piece.number, piece.pieces] = len(value)
        self._make_room(at)

    def _make_room(self, coming: tuple[str, str]) -> None:
        """Pieces stay also when their model is whole, for its next version may share them; the oldest go first."""
        wanted = {(name, sha256) for name, (card, _) in self._cards.items() for sha256 in card.artefacts.values()}
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

    def _whole(self, name: str) -> Path | None:
        """The model of that name as a folder, where card and pieces are here."""
        if name not in self._cards:
            return None
        card, raw = self._cards[name]
        if not all(self._count(name, sha256) for sha256 in card.artefacts.values()):
            return None
        folder = self._folder / f"model-{card.digest}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file, sha256 in card.artefacts.items():
            self._join(name, sha256, folder / file)
        (folder / CARD).write_bytes(raw)
        del self._cards[name]
        return folder

    def _join(self, name: str, sha256: str, target: Path) -> None:
        count = self._count(name, sha256)
        with target.open("wb") as file:
            for number in range(count):
                file.write((self._place(name, sha256) / f"{number}.{count}").read_bytes())
        if file_sha256(target) != sha256:
            self._forget(name, sha256)
            raise BadModel(f"the pieces of {name}'s {sha256[:12]} are not of that SHA-256", remedy="publish it again")

    def _count(self, name: str, sha256: str) -> int:
        """In how many pieces the file is here; 0 = one is missing."""
        held = self._files.get((name, sha256), {})
        counts = sorted({count for _, count in held})
        return next((count for count in counts if all((number, count) in held for number in range(count))), 0)

    def _forget(self, name: str, sha256: str) -> None:
        self._files.pop((name, sha256), None)
        shutil.rmtree(self._place(name, sha256), ignore_errors=True)

    def _place(self, name: str, sha256: str) -> Path:
        return self._folder / f"{sha256}-{name}"


def _piece_of(key: str) -> Piece:
    found = PIECE.fullmatch(key)
    if found is None or not NAME.fullmatch(found[1]):
        raise _refused(f"'{key[:80]}' is no key of the topic models")
    piece = Piece(found[1], found[2], int(found[3]), int(found[4]))
    if piece.number >= piece.pieces:
        raise _refused(f"'{key[:80]}' is no piece of a file")
    return piece


def _count(size: int) -> int:
    return max(1, -(-size // CHUNK_BYTES))


def _refused(message: str) -> ModelRefused:
    return ModelRefused(ModelFault.BAD_MODEL_RECORD, message)
