"""`{slot}` in a path of the settings: each slot has a store, snapshots and an archive of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickcast.settings import Settings

SLOT = "{slot}"
PATHS = {"store": ("path", "archive"), "snapshot": ("folder",), "registry": ("folder",), "runtime": ("folder",)}


def refuse_shared(settings: Settings) -> None:
    """Two slots in one folder would write over each other's files."""
    if settings.bus.kind != "kafka" or settings.kafka.slots == 1:
        return
    store = settings.store
    folders = {"store.path": store.path.parent, "store.archive": store.archive}
    folders |= {"snapshot.folder": settings.snapshot.folder, "registry.folder": settings.registry.folder}
    for key, folder in folders.items():
        if folder is not None and SLOT not in str(folder):
            raise ValueError(f"with kafka.slots above 1 the folder of {key} must have {SLOT} in its name")


def of_its_slot(settings: Settings) -> Settings:
    """The same settings with the number of the slot in their paths."""
    changed = {}
    for section, keys in PATHS.items():
        old = getattr(settings, section)
        paths = {key: path for key in keys if (path := getattr(old, key)) is not None}
        number = str(settings.kafka.slot)
        changed[section] = old.model_copy(update={k: Path(str(p).replace(SLOT, number)) for k, p in paths.items()})
    return settings.model_copy(update=changed)
