"""The figures of a training run for TensorBoard: the one door to tensorboardX."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paratrain.errors import MissingDependencyError, ParatrainError
from paratrain.metrics.sink import Figure

__all__ = ["TensorBoardWriter"]

_numbers = itertools.count()

# Where a figure of a displayed iteration is shown: TensorBoard groups by what stands before the slash.
_TAGS = {
    "loss": "train/loss",
    "loss_min": "train/loss_min",
    "loss_max": "train/loss_max",
    "lr": "train/lr",
    "images_per_s": "speed/images_per_s",
    "data_share": "speed/data_share",
    "bad_records": "speed/bad_records",
    "data_s": "time/data_s",
    "forward_s": "time/forward_s",
    "backward_s": "time/backward_s",
    "exchange_s": "time/exchange_s",
    "update_s": "time/update_s",
    "exchange_predicted_s": "time/exchange_predicted_s",
}


class TensorBoardWriter:
    """Writes a file of events to ``folder``, which is made if it is missing; the step is the iteration. Flushed at once.

    A run that is resumed at iteration ``first_step`` adds a file, and TensorBoard drops what files before it have from that step
    on. It writes in the caller's thread: tensorboardX's own SummaryWriter has one beside it, which a full disk would end, and
    which would then be waited for. Raises MissingDependencyError without tensorboardX, and ParatrainError where ``folder`` cannot
    be written.
    """

    def __init__(self, folder: str | Path, *, first_step: int = 0) -> None:
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import Summary, text
        except ImportError as error:
            raise MissingDependencyError("tensorboardX", "--tensorboard", "tensorboard") from error
        self.folder = Path(folder)
        self._event, self._summary, self._text = Event, Summary, text
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            # The name has the second, the host, and this: files of one second must not have the same name.
            suffix = f".{os.getpid()}.{next(_numbers)}"
            self._writer = EventsWriter(str(self.folder / "events"), suffix)
            if first_step:
                start = SessionLog(status=SessionLog.START)
                self._writer.write_event(Event(wall_time=time.time(), step=first_step, session_log=start))
            self._writer.flush()

    def write(self, **figures: Figure) -> None:
        """Add the figures of a displayed iteration or of a test, and what a run is, as text."""
        values, step = _scalars(figures), figures.get("iteration")
        summary = self._summary(value=[self._summary.Value(tag=tag, simple_value=one) for tag, one in values.items()])
        if isinstance(run := figures.get("run"), Mapping):
            described = "\n".join("    " + line for line in json.dumps(run, indent=2).splitlines())
            summary, step = self._text("run", described), run.get("iteration")
        if not summary.value:
            return
        with self._told():
            self._writer.write_event(self._event(wall_time=figures.get("time"), step=step, summary=summary))
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with self._told():
            self._writer.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ParatrainError(f"cannot write to --tensorboard '{self.folder}': {error.strerror}") from None


def _scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """What of a record is a curve, by tag."""
    if "test_net" in figures:
        group = f"test_{figures['test_net']}" if figures["test_net"] else "test"
        return _outputs(group, figures["outputs"])
    if "loss" not in figures:
        return {}
    values = {tag: float(figures[name]) for name, tag in _TAGS.items() if name in figures}
    return values | _outputs("train/output", figures.get("train_outputs", {}))


def _outputs(group: str, outputs: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in outputs.items():
        if isinstance(value, Sequence):
            found |= {f"{group}/{name}/{index}": float(item) for index, item in enumerate(value)}
        else:
            found[f"{group}/{name}"] = math.nan if value is None else float(value)
    return found
