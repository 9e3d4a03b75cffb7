"""A model folder: the names of its files, its card, and what makes it fit to be opened. It runs no model and changes
no file.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

import msgspec

from tickcast.engine.inference.model_files import refuse_foreign
from tickcast.errors import BadModel
from tickcast.records import ModelCard, digest

CARD, PROBE, GRAPH = "card.json", "probe.safetensors", "model.onnx"
STEP_GRAPH = "step.onnx"  # moves a state on by one bar and answers from it; beside GRAPH, where a model has one
REFERENCE = "reference.safetensors"  # what drift is judged by; a model of before has none
FRAMEWORK = "onnx"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a model in the registry
RESERVED = ("naive", "seasonal", "holt", "model", "fallback")  # names of rungs: who says one means that
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SCHEMA = 1
MAX_CARD_BYTES = 4 << 20
MAX_ARTEFACT_BYTES = 512 << 20
MAX_FILES = 64
PLAIN = "a model folder holds a few plain files only"
AGAIN = "copy the folder again from where it was fitted, or fit the model again"


def read_card(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise BadModel(f"{path} is larger than {MAX_CARD_BYTES} bytes", remedy=AGAIN)
        raw = path.read_bytes()
    except OSError as error:
        remedy = "give the folder that `tickcast fit` wrote"
        raise BadModel(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    return parse_card(raw, str(path))


def parse_card(raw: bytes, origin: str) -> ModelCard:
    """The card that `raw` spells; `origin` is what a refusal names."""
    try:
        card = msgspec.json.decode(raw, type=ModelCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadModel(f"{origin} is not a model card: {error}", remedy=AGAIN) from None
    if card.schema != SCHEMA:
        raise BadModel(f"{origin} has schema {card.schema}, this program reads {SCHEMA}", remedy="update tickcast")
    whole = msgspec.to_builtins(card)  # a card of before may lack fields, and may hold none that nobody knows
    if digest(card) != card.digest or {**whole, **msgspec.json.decode(raw)} != whole:
        raise BadModel(f"{origin} does not match its digest: it was changed or damaged", remedy=AGAIN)
    for name in card.artefacts:
        if not FILE_NAME.fullmatch(name) or name == CARD:
            raise BadModel(f"{origin} names an artefact outside its folder: {name[:80]!r}", remedy=AGAIN)
    return card


def verify(folder: Path, card: ModelCard) -> None:
    """Every artefact of the card is there and unchanged."""
    for name, expected in card.artefacts.items():
        path = folder / name
        try:
            if path.stat().st_size > MAX_ARTEFACT_BYTES:
                raise BadModel(f"{path} is larger than {MAX_ARTEFACT_BYTES} bytes", remedy=AGAIN)
            found = file_sha256(path)
        except OSError as error:
            raise BadModel(f"cannot read {path}: {error.strerror}", remedy=AGAIN) from None
        if found != expected:
            raise BadModel(f"{path} is damaged: its SHA-256 is not the one in {CARD}", remedy=AGAIN)


def verify_strictly(folder: Path) -> ModelCard:
    """The card of a folder that holds it, its artefacts and nothing else, each of a kind that cannot run code."""
    card = read_card(folder)
    verify(folder, card)
    if unknown := sorted({entry.name for entry in folder.iterdir()} - {CARD, *card.artefacts}):
        raise BadModel(f"{folder / unknown[0]} is no file of this model", remedy="remove it, or import the model again")
    for name in card.artefacts:
        refuse_foreign(folder / name)
    return card


def copy_plain_files(folder: Path, target: Path) -> None:
    """Copy what a model folder may hold; what is no plain file, or is too large, is refused before it is read."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise BadModel(f"cannot read {folder}: {error.strerror}", remedy="give a model folder") from None
    if len(names) > MAX_FILES:
        raise BadModel(f"{folder} holds more than {MAX_FILES} files", remedy=PLAIN)
    for name in names:
        copy_plain_file(folder / name, target / name, MAX_CARD_BYTES if name == CARD else MAX_ARTEFACT_BYTES)


def copy_plain_file(source: Path, target: Path, most_bytes: int) -> None:
    """Neither a link nor larger than that; judged by its open handle, so that nobody can change it in between."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "is a link" if source.is_symlink() else f"cannot be read: {error.strerror}"
        raise BadModel(f"{source} {why}", remedy=PLAIN) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BadModel(f"{source} is no plain file", remedy=PLAIN)
        if found.st_size > most_bytes:
            raise BadModel(f"{source} is larger than {most_bytes} bytes", remedy="a model of that size is not kept")
        with target.open("xb") as writer:
            left = most_bytes  # it may grow meanwhile
            while part := os.read(handle, min(left, 1 << 20)):
                left -= writer.write(part)
            writer.flush()
            os.fsync(writer.fileno())
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
