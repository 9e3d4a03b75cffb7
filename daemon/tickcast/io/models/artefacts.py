"""Model folders by their digest, and each of their files once, by its SHA-256. A folder is there whole or not at all.

`<digest>/` is a model folder whose artefacts are hard links into `files/`; the number of links says whether a file is
still needed. One process at a time may change it: the one that holds the store.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from tickcast.clock import fresh_id
from tickcast.durable import sync
from tickcast.engine.inference.model_folder import (
    CARD,
    copy_plain_files,
    file_sha256,
    read_card,
    verify,
    verify_strictly,
)
from tickcast.errors import BadModel, ModelFault, ModelRefused, StoreStalled
from tickcast.records import ModelCard
from tickcast.settings import Settings

FILES = "files"
UNFINISHED = re.compile(r"\.part-[0-9a-f]{32}")  # comes or goes; left by a process that died
DIGEST = re.compile(r"[0-9a-f]{64}")


def artefact_folder(settings: Settings) -> Path:
    return (settings.registry.folder or settings.store.path.parent / "artefacts").absolute()


class Artefacts:
    """All of it blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = folder / FILES
        self._is_clear = False

    def add(self, folder: Path, *, judge: Callable[[ModelCard], None] = lambda card: None) -> ModelCard:
        """Keep a copy of a model folder, which is checked first and may be anybody's; BadModel says what is wrong.

        `judge` may refuse the card of what is about to be kept.
        """
        coming = self._unfinished()
        try:
            self._clear_up()
            coming.mkdir()
            copy_plain_files(folder, coming)
            card = verify_strictly(coming)
            judge(card)
            if not self._is_whole(card):
                self._keep(coming, card)
        except OSError as error:
            raise StoreStalled(f"{self.folder} takes nothing: {error}", remedy="free space on its disk") from None
        finally:
            shutil.rmtree(coming, ignore_errors=True)
        return card

    def open(self, digest: str) -> Path:
        """The model folder of that digest, its hashes verified again."""
        folder = self._place(digest)
        if not folder.is_dir():
            raise ModelRefused(ModelFault.UNKNOWN_MODEL, f"no files of model {digest[:12]} are here")
        card = read_card(folder)
        verify(folder, card)
        if card.digest != digest:
            raise BadModel(f"{folder} holds model {card.digest[:12]}", remedy="register the model again")
        return folder

    def bytes_of(self, card: ModelCard) -> int:
        """Of the model's files; those that are gone count nothing."""
        files = [self._place(card.digest) / name for name in card.artefacts]
        return sum(file.stat().st_size for file in files if file.is_file())

    def digests(self) -> set[str]:
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in self.folder.iterdir() if DIGEST.fullmatch(entry.name)}

    def retain(self, keep: Collection[str]) -> list[str]:
        """Take away all models but these, and the files that no model shares; returns what went."""
        self._clear_up()
        gone = sorted(self.digests() - set(keep))
        for digest in gone:
            self._take_away(self._place(digest))
        for file in self._files.iterdir():
            if file.stat().st_nlink == 1:
                file.unlink()
        return gone

    def _clear_up(self) -> None:
        """Before the first change: what an earlier process left unfinished goes. Who only reads changes nothing."""
        if self._is_clear:
            return
        self._files.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if UNFINISHED.fullmatch(entry.name):
                shutil.rmtree(entry)
        self._is_clear = True

    def _place(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise ModelRefused(ModelFault.UNKNOWN_MODEL, f"'{digest[:80]}' is no digest", remedy="64 hex digits")
        return self.folder / digest

    def _unfinished(self) -> Path:
        return self.folder / f".part-{fresh_id()}"

    def _is_whole(self, card: ModelCard) -> bool:
        try:
            self.open(card.digest)
        except (BadModel, ModelRefused):
            return False
        return True

    def _keep(self, coming: Path, card: ModelCard) -> None:
        """Share the files, then give the folder its name: with that it is there."""
        for name, sha256 in card.artefacts.items():
            self._share(coming / name, sha256)
        sync(self._files)
        (coming / CARD).chmod(0o444)
        sync(coming)
        place = self._place(card.digest)
        if place.exists():  # damaged: it was not whole
            self._take_away(place)
        coming.rename(place)
        sync(self.folder)

    def _share(self, file: Path, sha256: str) -> None:
        """Make `file` a link to the one copy; a copy that was damaged since gives way to this one."""
        shared = self._files / sha256
        if shared.exists() and file_sha256(shared) == sha256:
            file.unlink()
            os.link(shared, file)
            return
        file.chmod(0o444)
        link = file.with_name(f".{file.name}")
        os.link(file, link)
        link.replace(shared)

    def _take_away(self, folder: Path) -> None:
        """Under its name it is whole or gone, whenever the process ends."""
        leaving = self._unfinished()
        folder.rename(leaving)
        sync(self.folder)
        shutil.rmtree(leaving)
