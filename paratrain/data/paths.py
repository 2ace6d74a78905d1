"""What to say about a database that is not there."""

from __future__ import annotations

from pathlib import Path

from paratrain.errors import DataError

__all__ = ["no_such_database"]


def no_such_database(path: str) -> DataError:
    """Return the error for a path that does not exist; it says where was looked, and what is there instead."""
    folder = Path(path).absolute().parent
    return DataError(f"{path}: no such database (looked up from {Path.cwd()}; {folder} {_holds(folder)})")


def _holds(folder: Path) -> str:
    """The folders beside the missing one."""
    if not folder.is_dir():
        return "does not exist either"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"holds the folders {shown}" if names else "holds no folders"
