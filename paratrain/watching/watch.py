"""A rank's side of watching: it shows where it is, and ends when it is told to."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import socket
import sys
import threading
import traceback
import weakref
from typing import Any

from paratrain.activity import Activity
from paratrain.watching.board import SIZE_BYTES, Board, create_memory
from paratrain.watching.wire import Wire

__all__ = ["Watch"]

logger = logging.getLogger(__name__)

_CONNECT_S = 10.0


class Watch:
    """Joins this process, as ``rank``, to the helper of its host, which has answered ``helper`` to who started it.

    ``hub`` is the answer of rank 0's helper. From now on the helper sees each step of ``activity``; Python's tracebacks of
    crashes go to it; and a thread, which does nothing else, waits for its order to end. Raises OSError where the helper
    cannot be reached.
    """

    def __init__(
        self, rank: int, activity: Activity, helper: dict[str, Any], hub: dict[str, Any] | None, token: str
    ) -> None:
        self.activity = activity
        self._is_closed = False
        self._main = threading.main_thread().ident
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        memory = create_memory("paratrain-position", SIZE_BYTES)
        self._crash = create_memory("paratrain-traceback", 0)
        hello = {"token": token, "rank": rank, "hub": hub}
        try:
            self._socket.settimeout(_CONNECT_S)
            self._socket.connect(f"\0{helper['name']}")
            socket.send_fds(self._socket, [Wire.encode(hello)], [memory, self._crash])
            self._socket.settimeout(None)
            self._board = Board(memory, activity)
        except BaseException:
            self._socket.close()
            os.close(self._crash)
            raise
        finally:
            os.close(memory)
        faulthandler.enable(self._crash)
        self.wait = self._board.wait
        """To be told of long waits: see Board.wait."""
        _in_children(self)
        atexit.register(self._at_exit)
        threading.Thread(target=self._listen, daemon=True, name="watch").start()

    def explain(self) -> None:
        """This rank is about to end in an error, which it has reported."""
        self._is_closed = True
        self._board.mark_explained()

    def close(self) -> None:
        """This rank is about to end as it should. It can still be told to end, should others not."""
        self._is_closed = True
        self._board.mark_done()

    def leave_child(self) -> None:
        """In a child process that was forked: this is none of its business."""
        self.activity.remove_listener(self._board.enter)
        self._socket.close()

    def _at_exit(self) -> None:
        if getattr(sys, "last_value", None) is None:
            self.close()
        else:  # Python has written the traceback
            self.explain()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = Wire.parse(line)
                if message["kind"] == "end":
                    _end(int(message["code"]))
                self._socket.sendall(Wire.encode({"kind": "trace", "text": self._trace()}))
        if not self._is_closed:
            logger.warning("The watcher of this host has gone; its ranks go on, and nobody watches them")

    def _trace(self) -> str:
        """The traceback of the main thread, as it is at the moment."""
        frame = sys._current_frames().get(self._main or 0)
        if frame is None:
            return ""
        return "Traceback (most recent call last):\n" + "".join(traceback.format_stack(frame))


def _in_children(watch: Watch) -> None:
    found = weakref.ref(watch)

    def leave() -> None:
        if (here := found()) is not None:
            here.leave_child()

    os.register_at_fork(after_in_child=leave)


def _end(code: int) -> None:
    """End this process at once: the helper has said why. What the main thread holds is left to the system."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
