"""The program of a helper: from its configuration on stdin to the end of its ranks."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import resource
import signal
import sys

from paratrain import log
from paratrain.watching.helper import Helper
from paratrain.watching.wire import Wire

__all__ = ["main"]


def main() -> None:
    """Run a helper until its ranks have gone."""
    configuration = Wire.parse(sys.stdin.buffer.readline())
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # they are for the ranks, which end when they should
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the hub has a connection to every host
    log.init_log()
    _log_aside()
    helper = Helper(configuration)
    os.write(1, Wire.encode(helper.ready))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    why = "the watcher has failed"
    try:
        helper.run()
        why = ""
    finally:
        helper.leave(why)


def _log_aside() -> None:
    """Write the log in a thread: where nobody takes it (a terminal that is held), watching goes on, and others hear of it."""
    logger = logging.getLogger("paratrain")
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(lines, *logger.handlers)
    logger.handlers[:] = [logging.handlers.QueueHandler(lines)]
    listener.start()
