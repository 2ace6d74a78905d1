"""What MPI libraries leave in /dev/shm when their processes are killed, and how it is told from what others use."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

__all__ = ["FOLDER", "list_segments", "remove_leftovers"]

logger = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # noqa: S108, where Linux keeps shared memory
_PROCESSES = Path("/proc")

# MPICH; UCX, through which MPICH may send; Open MPI 5 and 4.
_PREFIXES = ("mpich_shm_", "ucx_shm_posix_", "sm_segment.", "vader_segment.")
_PREFIX = re.compile("/(" + "|".join(map(re.escape, _PREFIXES)) + ")")


def list_segments(folder: Path = FOLDER) -> set[tuple[str, int]]:
    """The segments of MPI libraries in ``folder`` that belong to this user: name and inode."""
    found = set()
    try:
        names = [path for path in folder.iterdir() if path.name.startswith(_PREFIXES)]
    except OSError:
        return set()
    for path in names:
        try:
            status = path.stat(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        if status.st_uid == os.geteuid():
            found.add((path.name, status.st_ino))
    return found


def remove_leftovers(
    before: set[tuple[str, int]], folder: Path = FOLDER, processes: Path = _PROCESSES
) -> tuple[int, int]:
    """Remove the segments that nobody uses and that were not there ``before`` the job began; return how many, and their bytes.

    A segment stays while any process has it open or mapped, so that other jobs of this user, begun meanwhile, keep theirs. (The
    name of a segment that all its ranks have mapped could go without harm in any case; the memory lives as long as they do.)
    """
    candidates = list_segments(folder) - before
    if not candidates:
        return 0, 0
    used = _used_inodes(folder, {inode for _, inode in candidates}, processes)
    count = size_bytes = 0
    for name, inode in sorted(candidates):
        path = folder / name
        try:
            status = path.stat(follow_symlinks=False)
            if inode in used or status.st_ino != inode:
                continue
            path.unlink()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                logger.warning("%s: is of no use any more and cannot be removed (%s)", path, error.strerror)
            continue
        count += 1
        size_bytes += status.st_size
    return count, size_bytes


def _used_inodes(folder: Path, inodes: set[int], processes: Path) -> set[int]:
    """Those of the ``inodes`` of files in ``folder`` that a process has open or mapped.

    A process opens a segment, maps it and closes it: asked in this order, open before mapped, none is overlooked.
    """
    used: set[int] = set()
    device = folder.stat().st_dev
    # Another container's /dev/shm has the same inodes.
    device_in_maps = f"{os.major(device):02x}:{os.minor(device):02x}"
    for process in processes.iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                try:
                    status = descriptor.stat()
                except OSError:
                    continue
                if status.st_dev == device and status.st_ino in inodes:
                    used.add(status.st_ino)
            lines = (process / "maps").read_text(errors="replace").splitlines()
        except OSError:
            continue  # ended, or another user's: it could not have opened a file of ours
        for line in lines:
            words = line.split(maxsplit=5)  # address, permissions, offset, device, inode, path
            is_here = len(words) == 6 and words[3] == device_in_maps and words[4].isdigit()
            if is_here and int(words[4]) in inodes and _PREFIX.search(words[5]):
                used.add(int(words[4]))
    return used
