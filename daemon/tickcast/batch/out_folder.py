"""Where a command leaves its results. What is there already and is not ours is refused before any work; nothing that
a person put there is ever replaced or removed.

A folder of results holds MARK. A model folder is told by its card, since it may hold nothing beside its artefacts.
"""

import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from tickcast.clock import fresh_id
from tickcast.engine.inference.model_folder import CARD, copy_plain_files, read_card
from tickcast.errors import BadModel, BadSettings

MARK = ".tickcast"
MARK_TEXT = "tickcast leaves results in this folder, and replaces those of its runs before; it touches nothing else\n"
ANOTHER = "name a folder that is empty or new"
OF_ITS_OWN = "name a folder of its own, such as out/results"


def claim(out: Path, *, writes: Collection[str], told_by: Collection[str] = ()) -> None:
    """Make `out` a folder of ours, or refuse it. `writes` are the names that the command replaces in it.

    `told_by` are names that are all there where a version that knew no mark left its results.
    """
    entries = _entries(out)
    is_ours = MARK in entries or (bool(told_by) and entries.issuperset(told_by))
    if entries and not is_ours:
        raise BadSettings(f"{out} holds {_some(entries)}, and nothing says that tickcast made it", remedy=ANOTHER)
    for name in sorted(entries.intersection(writes)):
        if (out / name).is_symlink():
            raise BadSettings(f"{out / name} is a link: what it leads to would be replaced", remedy="remove the link")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).write_text(MARK_TEXT)
    except OSError as error:
        raise _unwritable(out, error) from None


def claim_new(out: Path) -> None:
    """The same for a command that owns its folder whole: there must be nothing in it but the mark."""
    if strangers := _entries(out) - {MARK}:
        raise BadSettings(f"{out} holds {_some(strangers)}", remedy=ANOTHER)
    claim(out, writes=())


def claim_model(out: Path) -> None:
    """Refuse all that a fitted model may not replace: it replaces nothing, an empty folder, or a model as made."""
    entries = _entries(out)
    if entries:
        try:
            strangers = entries - _files_of_model(out)
        except BadModel:
            raise BadSettings(f"{out} holds {_some(entries)}, and is no model folder", remedy=ANOTHER) from None
        if strangers:
            raise BadSettings(f"{out} holds {_some(strangers)} beside its model", remedy=f"move that, or {ANOTHER}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise _unwritable(out, error) from None


def install_model(model: Path, out: Path) -> None:
    """Put a finished model in the place of the one that `claim_model` found there; readers see one or the other."""
    fresh, before = (out.with_name(f".{out.name}.{fresh_id()}") for _ in range(2))
    fresh.mkdir(parents=True)
    try:
        copy_plain_files(model, fresh)
        claim_model(out)  # again: a fit takes long
        if out.exists():
            out.rename(before)
        fresh.rename(out)
    finally:
        for folder in (fresh, before):
            _remove_model(folder)


def drop_models(folder: Path) -> None:
    """Remove the model folders that an earlier run left in a folder of ours; anything else there is refused."""
    models = sorted(folder.iterdir()) if folder.exists() else []
    for model in models:
        claim_model(model)
    for model in models:
        _remove_model(model)


def claim_file(out: Path, *, is_ours: Callable[[Path], bool] = lambda path: False) -> None:
    """Refuse a file that is there already, unless it is ours, and a place that cannot be written."""
    if out.is_symlink() or (out.exists() and not (out.is_file() and is_ours(out))):
        raise BadSettings(f"{out} is there already", remedy="name a new file, or remove that one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise _unwritable(out, error) from None


def _entries(out: Path) -> set[str]:
    """Names in the folder; BadSettings where it can be none of ours, whatever it holds."""
    if out.is_symlink():
        raise BadSettings(f"{out} is a link to {os.readlink(out)}", remedy="name the folder itself")
    try:
        place, here, home = out.resolve(), Path.cwd(), Path(os.path.expanduser("~")).resolve()
        if place in (here, *here.parents, home, *home.parents):
            raise BadSettings(f"{out} is a folder that holds more than results", remedy=OF_ITS_OWN)
        return {entry.name for entry in out.iterdir()}
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        what = "is a file" if out.is_file() else "lies below a file"
        raise BadSettings(f"{out} {what}", remedy=ANOTHER) from None
    except (OSError, RuntimeError) as error:
        raise BadSettings(f"{out} cannot be read: {error}", remedy=ANOTHER) from None


def _files_of_model(folder: Path) -> set[str]:
    return {CARD, *read_card(folder).artefacts}


def _remove_model(folder: Path) -> None:
    """The files that a model has, each by its name; the folder itself only when nothing is left in it."""
    if not folder.exists():
        return
    for name in _files_of_model(folder) if (folder / CARD).exists() else ():
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        return  # somebody put a file there meanwhile: it stays


def _some(entries: Collection[str]) -> str:
    shown = sorted(entries)[:3]
    return ", ".join(shown) + (f" and {len(entries) - len(shown)} more" if len(entries) > len(shown) else "")


def _unwritable(out: Path, error: OSError) -> BadSettings:
    return BadSettings(f"{out} cannot be written: {error.strerror}", remedy="name a place where this user may write")
