"""A timeline of all ranks: noted by each, and gathered into one file at the end."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from paratrain.comm import Communicator
from paratrain.data_parallel.driver import DataParallel
from paratrain.data_parallel.slices import Slice
from paratrain.data_parallel.timeline.chrome import RankTrace, write_trace
from paratrain.data_parallel.timeline.clocks import Alignment, name_clock, read_clocks
from paratrain.data_parallel.timeline.recorder import Clock, Recorder
from paratrain.errors import ParatrainError
from paratrain.net import Parameters
from paratrain.proto import replace_atomically
from paratrain.solvers import Solver

__all__ = ["Timeline", "check_timeline_path"]

_MOST_OF_ALL = 1_000_000
_MOST_OF_A_RANK = 20_000

logger = logging.getLogger(__name__)


class Timeline:
    """Notes from now on what the rank of ``solver`` does, and what its exchange has on its way. All ranks make one.

    ``first`` and ``count`` choose iterations (see :class:`Recorder`). All ranks together keep about a million entries, 100 MB
    of the file, but each at least 20,000; a rank that is full stops noting. ``clock`` counts nanoseconds, and ranks whose
    clocks have the same name read the same clock.
    """

    def __init__(
        self,
        solver: Solver,
        communicator: Communicator,
        *,
        first: int | None = None,
        count: int | None = None,
        most: int | None = None,
        clock: Clock = time.perf_counter_ns,
        clock_name: str | None = None,
    ) -> None:
        self._communicator = communicator
        self._clock = clock
        self._clock_name = name_clock() if clock_name is None else clock_name
        self._slice_details: list[dict[str, Any]] = []
        self._begin = read_clocks(communicator, clock, self._clock_name)
        if most is None:
            most = max(_MOST_OF_A_RANK, _MOST_OF_ALL // communicator.size)
        self._recorder = Recorder(solver.activity, first=first, count=count, most=most, clock=clock)
        if isinstance(solver.shares, DataParallel):
            self._slice_details = [_describe(found, solver.net.parameters) for found in solver.shares.slices]
            solver.shares.watched = self._recorder.watched

    def write(self, path: str | os.PathLike[str]) -> None:
        """Stop noting, and have rank 0 write what all ranks have noted to ``path``, compressed if that ends with ``.gz``.

        All ranks call it. The file is whole or not there. Raises ParatrainError, on rank 0.
        """
        communicator = self._communicator
        recording = self._recorder.end()
        end = read_clocks(communicator, self._clock, self._clock_name)
        own = RankTrace(communicator.rank, socket.gethostname(), recording, self._slice_details)
        traces: list[RankTrace] | None = communicator.gather_objects(own)
        if traces is None:
            return
        alignments = [Alignment(begin, end) for begin, end in zip(self._begin, end, strict=True)]
        notes: dict[str, Any] = {
            "clock": "that of rank 0",
            "clock_error_us": {f"rank {rank}": aligned.error_ns / 1000 for rank, aligned in enumerate(alignments)},
        }
        if not any(trace.recording.times for trace in traces):
            logger.warning("The timeline is empty: no iteration of this run is among those of --timeline-steps")
        full = [trace.rank for trace in traces if trace.recording.is_full]
        if full:
            notes["ends_early"] = f"on ranks {', '.join(map(str, full))}, which have noted as much as they may"
            logger.warning(
                "The timeline ends before the run, %s; choose steps with --timeline-steps", notes["ends_early"]
            )
        try:
            with (
                replace_atomically(path) as temporary,
                gzip.open(temporary, "wt", encoding="utf-8")
                if os.fspath(path).endswith(".gz")
                else temporary.open("w", encoding="utf-8") as stream,
            ):
                write_trace(stream, traces, alignments, notes)
        except OSError as error:
            raise ParatrainError(f"{path}: the timeline cannot be written ({error.strerror})") from None
        logger.info("Wrote the timeline of %d ranks to %s", len(traces), path)


def _describe(found: Slice, parameters: Parameters) -> dict[str, Any]:
    """Which values a slice has, for a viewer to show."""
    start, stop = found.part
    labels = [entry.label for entry in parameters.learning if entry.start < stop and start < entry.stop]
    shown = labels if len(labels) <= 2 else [labels[0], labels[-1]]
    return {"parameters": " to ".join(shown), "values": stop - start}


def check_timeline_path(path: str) -> None:
    """Raise ParatrainError unless a file could be written at ``path``, which is tried with one beside it that is removed."""
    file = Path(path)
    if file.is_dir():
        raise ParatrainError(
            f"{path}: is a folder; give the name of a file for the timeline, such as {file / 'timeline.json'}"
        )
    if not file.parent.is_dir():
        raise ParatrainError(
            f"{path}: the folder for the timeline does not exist ({file.parent.absolute()}); make it first"
        )
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ParatrainError(f"{path}: the timeline cannot be written there ({error.strerror})") from None
