"""What the files of a snapshot are called, and which snapshots lie in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CARRIED", "SnapshotNames", "leftovers", "list_snapshots", "training_name"]

CARRIED = ".carried.npz"
_ENDING = re.compile(r"(\d+)\.(caffemodel|caffemodel\.h5|solverstate|solverstate\.h5|carried\.npz|trainstate)")


@dataclass(frozen=True)
class SnapshotNames:
    """The files of the snapshot of an iteration, named as Caffe names its two."""

    prefix: str
    iteration: int
    hdf5: bool = False

    @property
    def model(self) -> str:
        """The weights."""
        return f"{self._stem}.caffemodel{self._ending}"

    @property
    def state(self) -> str:
        """The state of the solver."""
        return f"{self._stem}.solverstate{self._ending}"

    @property
    def carried(self) -> str:
        """What layers take over from one batch to the next, where there are such layers."""
        return f"{self._stem}{CARRIED}"

    @property
    def training(self) -> str:
        """What else resuming needs: the file that is written last."""
        return f"{self._stem}.trainstate"

    @property
    def _stem(self) -> str:
        return f"{self.prefix}_iter_{self.iteration}"

    @property
    def _ending(self) -> str:
        return ".h5" if self.hdf5 else ""


def training_name(state: str | os.PathLike[str]) -> Path:
    """The trainstate that belongs to a solver state, beside it under the same name."""
    path = Path(state)
    stem = path.name.removesuffix(".h5").removesuffix(".solverstate").removesuffix(".trainstate")
    return path.with_name(f"{stem}.trainstate")


def list_snapshots(prefix: str) -> dict[int, list[Path]]:
    """The files of every snapshot of ``prefix``, whole or not, by iteration, the newest (the largest) first."""
    found: dict[int, list[Path]] = {}
    for path, rest in _files(prefix, ""):
        match = _ENDING.fullmatch(rest)
        if match is not None:
            found.setdefault(int(match[1]), []).append(path)
    return dict(sorted(found.items(), reverse=True))


def leftovers(prefix: str) -> Iterator[Path]:
    """Yield the temporary files of snapshots of ``prefix`` whose process is not there any more."""
    for path, rest in _files(prefix, "."):
        match = re.fullmatch(r"(.+)\.(\d+)\.[0-9a-f]{8}\.tmp", rest)
        if match is not None and _ENDING.fullmatch(match[1]) is not None and not _is_alive(int(match[2])):
            yield path


def _files(prefix: str, hidden: str) -> Iterator[tuple[Path, str]]:
    """The files whose names begin with ``hidden`` and the prefix, and the rest of their names."""
    stem = Path(f"{prefix}_iter_")
    start = hidden + stem.name
    try:
        names = [path.name for path in stem.parent.iterdir()]
    except OSError:
        return
    for name in names:
        if name.startswith(start):
            yield stem.parent / name, name[len(start) :]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
