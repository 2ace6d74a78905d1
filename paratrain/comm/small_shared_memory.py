"""MPICH's ranks on one node talk through /dev/shm, and die by a signal where it is too small: looked at before MPI starts."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path

from paratrain.comm.environment import LauncherEnvironment

__all__ = ["avoid_small_shared_memory"]

logger = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")  # noqa: S108, where MPI libraries put their memory
_BYTES_PER_RANK = 6 * 2**20
"""MPICH 5.0 was seen to take 5.4 MB."""
_TRANSPORTS = "UCX_TLS"


def avoid_small_shared_memory(
    launcher: LauncherEnvironment | None, environ: MutableMapping[str, str] = os.environ, folder: Path = _FOLDER
) -> None:
    """Tell MPICH to use the network between the ranks of a node where /dev/shm has no room for them, and say so.

    Does nothing where somebody has chosen MPICH's transports already, and for other libraries. Call it before MPI starts.
    """
    if launcher is None or launcher.family != "mpich" or not launcher.local_size or _TRANSPORTS in environ:
        return
    try:
        space = os.statvfs(folder)
    except OSError:
        return
    free_bytes, wanted_bytes = space.f_bavail * space.f_frsize, launcher.local_size * _BYTES_PER_RANK
    if free_bytes >= wanted_bytes:
        return
    environ[_TRANSPORTS] = "tcp,self"
    if launcher.local_rank == 0:
        logger.warning(
            "%s has %.0f MB free, and MPI would take %.0f MB for %d ranks: they send messages by TCP instead; for quicker ones "
            "give it more (--shm-size=1g for a container)",
            folder,
            free_bytes / 1e6,
            wanted_bytes / 1e6,
            launcher.local_size,
        )
