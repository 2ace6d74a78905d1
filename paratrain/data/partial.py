"""Folders that are whole or not there: written under another name, which a rename makes the final one at the end.

``train_lmdb`` is written as ``train_lmdb.partial-4711``, 4711 being the process. Whatever ends the process, nothing of the
final name is there before it is whole. What a killed process left is removed by the next one that writes the same folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import itertools
import logging
import os
import resource
import shutil
from pathlib import Path
from types import TracebackType

from paratrain.errors import DataError

__all__ = ["PartialFolder", "write_error"]

logger = logging.getLogger(__name__)

# LMDB calls it an input/output error when the last piece that fits is shorter than what it had to write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_ROOM_TEXTS = tuple(os.strerror(number) for number in _NO_ROOM)


class PartialFolder:
    """A new folder: ``with PartialFolder(path) as folder:`` write into ``folder``; ``path`` is there after the block.

    A block that is left by an exception leaves nothing. An empty folder ``path`` is replaced; anything else that has this
    name is never touched. Raises DataError where it exists, is no name, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.name in ("", ".."):
            raise DataError(f"'{os.fspath(path)}' is no name of a new folder; write one, such as train_lmdb")
        self.folder = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        self._is_made = False
        self._lock: int | None = None

    def __enter__(self) -> Path:
        self._check_target()
        try:
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(self.path)
            self._make()
            self._lock = _lock(self.folder)
        except BaseException as error:
            if self._is_made:
                _remove(self.folder)
            if isinstance(error, OSError):
                raise write_error(self.path, error) from None
            raise
        return self.folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            _remove(self.folder)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _make(self) -> None:
        """Make the folder; another writer of this process may have its name."""
        first = self.folder.name
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                self._is_made = True  # beforehand: a signal may come as soon as it is
                self.folder.mkdir()
                return
            self._is_made = False
            self.folder = self.folder.with_name(f"{first}.{number}")

    def _check_target(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink() and not any(self.path.iterdir()):
            return
        if self.path.exists() or self.path.is_symlink():
            raise DataError(f"{self.path}: exists already; remove it first, or choose another name")

    def _finish(self) -> None:
        self._check_target()
        try:
            for file in (path for path in self.folder.rglob("*") if path.is_file()):
                _sync(file)
            _sync(self.folder)
            self.folder.rename(self.path)
            _sync(self.path.absolute().parent)
        except OSError as error:
            raise write_error(self.path, error) from None


def _remove(folder: Path) -> None:
    """Remove a folder, whatever interrupts that."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_error(path: str | os.PathLike[str], error: Exception) -> DataError:
    """The error to raise where ``path`` cannot be written; of a full disk it says how full, and what to do."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _text(error)
    message = f"{os.fspath(path)}: cannot be written ({reason})"
    if getattr(error, "errno", None) not in _NO_ROOM and not any(text in reason for text in _NO_ROOM_TEXTS):
        return DataError(message)
    folder = Path(path).absolute().parent
    with contextlib.suppress(OSError):
        message += f"; {shutil.disk_usage(folder).free:,} bytes are free in {folder}"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        message += f", and a file may have {limit:,} bytes (ulimit -f)"
    return DataError(f"{message}. If that is too little, make room or write to another disk; nothing is left of it")


def _text(error: Exception) -> str:
    """plyvel's messages are bytes where they come from LevelDB."""
    (first, *_) = error.args or (error,)
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)


def _clear_leftovers(path: Path) -> None:
    """Remove what processes that are gone have left of earlier attempts at ``path``; name what may be in use."""
    for folder in path.absolute().parent.glob(f"{glob.escape(path.name)}.partial-*"):
        number = folder.name.rpartition("-")[2].partition(".")[0]
        if not number.isdecimal() or not folder.is_dir():
            continue
        if _is_abandoned(folder, int(number)):
            shutil.rmtree(folder)
            logger.warning("removed %s, which a process that was cut short had left", folder)
        else:
            logger.warning(
                "%s is there: it seems that %s is being written by process %s too", folder, path.name, number
            )


def _is_abandoned(folder: Path, process: int) -> bool:
    """Whether nobody writes the folder any more: no process of this machine has the number, and nobody holds the lock."""
    if process != os.getpid() and _is_running(process):
        return False
    lock = _lock(folder)
    if lock is None:
        return False
    os.close(lock)
    return True


def _is_running(process: int) -> bool:
    """Whether there is such a process that has not ended; one that has may keep its number until its parent asks."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _lock(folder: Path) -> int | None:
    """Lock the folder for as long as the descriptor is open; None where another holds it, or there are no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
