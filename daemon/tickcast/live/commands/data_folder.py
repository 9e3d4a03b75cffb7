"""Files and folders that a command names: they lie below `control.data_folder`, wherever links lead."""

from pathlib import Path

from tickcast.errors import CommandFault, CommandRefused


def below(folder: Path | None, name: str) -> Path:
    """The file or folder of that name; CommandRefused where it leads out of the folder, by a link for instance."""
    if folder is None:
        raise CommandRefused(CommandFault.BAD_ARGUMENT, "there is no control.data_folder", remedy="set it")
    root = folder.resolve()
    path = (root / name).resolve()
    if path == root or not path.is_relative_to(root):
        raise CommandRefused(CommandFault.BAD_ARGUMENT, f"'{name}' lies outside control.data_folder")
    return path
