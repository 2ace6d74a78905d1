"""The log as a file, named and begun as glog does, and a link to the newest."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import time
from pathlib import Path

from paratrain.errors import ParatrainError
from paratrain.log import GlogFormatter

__all__ = ["open_log_file"]

_LINK = "paratrain.INFO"


def open_log_file(folder: str) -> Path:
    """Send the log, from now on, to ``folder/paratrain.HOST.USER.log.INFO.DATE-TIME.PID`` as well, and return that path.

    The folder is made if it is missing, and ``paratrain.INFO`` in it links to the newest log. Raises ParatrainError.
    """
    now = time.localtime()
    host = socket.gethostname()
    stamp = time.strftime("%Y%m%d-%H%M%S", now)
    path = Path(folder) / f"paratrain.{host.partition('.')[0]}.{_user()}.log.INFO.{stamp}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise ParatrainError(f"--log-dir {folder}: the log cannot be written there ({error.strerror})") from None
    stream.write(
        f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S', now)}\n"
        f"Running on machine: {host}\n"
        "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(GlogFormatter())
    logging.getLogger("paratrain").addHandler(handler)
    link = path.with_name(_LINK)
    with contextlib.suppress(OSError):  # a file system without links
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
    return path


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return str(os.getuid())
