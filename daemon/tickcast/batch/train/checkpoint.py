"""`checkpoint/` of a job folder: what a fit needs to go on as if it had not been interrupted. It decides nothing.

`last.safetensors` is that whole state in one file, so that no kill leaves half of it: tensors, and in the file's header
a JSON record of where the fit stood. `last.json` repeats the record for people, `best.safetensors` the best weights.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tickcast.durable import sync
from tickcast.errors import BadData

CHECKPOINT, LAST, BEST, RECORD = "checkpoint", "last.safetensors", "best.safetensors", "last.json"
SCHEMA = 1


class Saved(NamedTuple):
    """One checkpoint."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]  # JSON; infinities and NaN included


class Checkpoints:
    """Of one fit, which `fingerprint` names: its order, its data, what it began with."""

    def __init__(self, job_folder: Path, fingerprint: Mapping[str, str]) -> None:
        self.folder, self._fingerprint = job_folder / CHECKPOINT, dict(fingerprint)

    def save(self, saved: Saved) -> None:
        self.folder.mkdir(exist_ok=True)
        text = json.dumps({"schema": SCHEMA, "fingerprint": self._fingerprint, **saved.record}, indent=1)
        tensors = {name: tensor.contiguous() for name, tensor in saved.tensors.items()}
        _replace(self.folder / LAST, lambda path: save_file(tensors, path, metadata={"record": text}))
        _replace(self.folder / RECORD, lambda path: path.write_text(text, encoding="utf-8"))

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        self.folder.mkdir(exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        _replace(self.folder / BEST, lambda path: save_file(tensors, path))

    def last(self) -> Saved | None:
        """The newest checkpoint, None before the first; one of another fit is refused."""
        path = self.folder / LAST
        if not path.exists():
            return None
        again = f"remove {self.folder} to begin anew"
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads(file.metadata()["record"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BadData(f"{path} cannot be read: {error}", remedy=again) from None
        if record.pop("schema", None) != SCHEMA:
            raise BadData(f"{path} is of another version of tickcast", remedy=again)
        found = record.pop("fingerprint")
        other = [name for name, value in self._fingerprint.items() if found.get(name) != value]
        if other:
            raise BadData(f"{path} belongs to another fit: its {', '.join(other)} differs", remedy=again)
        return Saved(tensors, record)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """The file is there whole, or as it was before: on a kill, and on a loss of power."""
    partial = path.with_name(f".{path.name}")
    write(partial)
    sync(partial)
    partial.replace(path)
    sync(path.parent)
