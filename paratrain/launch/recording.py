"""What ``paratrain train`` records for programs: ``--metrics`` and ``--tensorboard``, and what the run is."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

from paratrain import __version__
from paratrain.comm.communicator import Communicator
from paratrain.data_parallel import DataParallel
from paratrain.errors import ParatrainError
from paratrain.launch.cores import Cores
from paratrain.metrics import CsvWriter, LayerTimes, MetricsWriter, SeveralWriters, Sink, TensorBoardWriter
from paratrain.proto import format_prototxt
from paratrain.solvers import Solver
from paratrain.topology.tree import Tree

__all__ = ["Recording", "WarningList", "add_recording", "open_metrics"]

_LAYERS_EVERY = 50
"""Displayed iterations between two records of the layers' times."""


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Add ``--metrics`` and ``--tensorboard``."""
    parser.add_argument(
        "--metrics",
        action="append",
        default=[],
        metavar="FILE",
        help="write the displayed figures to FILE as JSON lines, which `paratrain plot` and `paratrain report` read, or as "
        "CSV if FILE ends with .csv; may be given several times",
    )
    parser.add_argument(
        "--tensorboard", metavar="DIR", help="write the displayed figures to DIR as TensorBoard reads them"
    )


def open_metrics(arguments: argparse.Namespace, solver: Solver, *, is_resumed: bool) -> None:
    """Open what is asked for and give it to ``solver``, which closes it. Raises ParatrainError."""
    sinks: list[Sink] = []
    try:
        for path in arguments.metrics:
            writer = CsvWriter if Path(path).suffix.lower() == ".csv" else MetricsWriter
            sinks.append(writer(path, append=is_resumed))
        if arguments.tensorboard is not None:
            sinks.append(TensorBoardWriter(arguments.tensorboard, first_step=solver.iter))
    except BaseException:
        SeveralWriters(sinks).close()
        raise
    if sinks:
        solver.metrics = SeveralWriters(sinks)


class WarningList(logging.Handler):
    """Keeps the warnings of the log, and passes them on as records as soon as there are metrics."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[str] = []
        self._sink: Sink | None = None
        logging.getLogger("paratrain").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning. Where it cannot be recorded it is in the log all the same."""
        text = record.getMessage()
        if self._sink is None:
            self._kept.append(text)
        else:
            with contextlib.suppress(ParatrainError, ValueError):  # ValueError: the file is closed
                self._sink.write(warning=text)

    def pass_on(self, sink: Sink) -> None:
        """Pass on what has been kept, and what comes from now on."""
        self._sink = sink
        for text in self._kept:
            sink.write(warning=text)

    def close(self) -> None:
        """Keep nothing any more."""
        logging.getLogger("paratrain").removeHandler(self)
        super().close()

    def __enter__(self) -> WarningList:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Recording:
    """Records beside the figures: what the run is, its warnings, and the times of the layers. All ranks make one.

    Rank 0 alone writes, where it has metrics. ``close`` comes before the solver's.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        solver: Solver,
        communicator: Communicator,
        tree: Tree,
        warnings: WarningList,
    ) -> None:
        hosts = communicator.gather_objects(socket.gethostname())
        self._metrics: Sink | None = solver.metrics
        if self._metrics is None or hosts is None:
            warnings.close()  # nobody would take them
            return
        self._metrics.write(run=describe_run(arguments, solver, tree, hosts))
        warnings.pass_on(self._metrics)
        self._layers = LayerTimes(solver.activity)
        self._solver = solver
        self._begin = solver.iter
        solver.after_update.append(self._note_layers)

    def close(self, error: Exception | None) -> None:
        """Write what is left, and the ``error`` that ends the run. All ranks call it."""
        if self._metrics is not None:
            self._layers.close()
            if error is not None:
                self._metrics.write(warning=f"The run ends at iteration {self._solver.iter}: {error}")
            if self._layers.step_count:
                self._metrics.write(layers=self._layers.record())

    def _note_layers(self) -> None:
        display = self._solver.parameter.display
        done = self._solver.iter - self._begin
        if display and self._metrics is not None and (done == display or done % (display * _LAYERS_EVERY) == 0):
            self._metrics.write(layers=self._layers.record())


def describe_run(arguments: argparse.Namespace, solver: Solver, tree: Tree, hosts: list[str]) -> dict[str, Any]:
    """What a run is: everything that a report tells beside the figures, in values that JSON has."""
    parameter, net = solver.parameter, solver.net
    cores: list[Cores] = arguments.cores
    shares = solver.shares
    found: dict[str, Any] = {
        "version": __version__,
        "command": ["paratrain", *arguments.command],
        "folder": str(Path.cwd()),
        "solver_file": arguments.file or arguments.solver,
        "net": net.name,
        "iteration": solver.iter,
        "max_iter": parameter.max_iter,
        "solver": format_prototxt(parameter),
        "backend": solver.backend.description,
        "random_seed": solver.seed,
        "images_per_iteration": solver.images_per_iteration,
        "hosts": hosts,
        "threads": [share.thread_count for share in cores],
        "parents": [tree.parent[rank] for rank in range(tree.size)],
        "parameter_count": net.parameters.data.count,
        "layers": [{"name": layer.name, "type": layer.type} for layer in net.layers],
    }
    if arguments.topology is not None:
        found["topology"] = str(Path(arguments.topology).absolute())
    if isinstance(shares, DataParallel):
        found["exchange"] = (
            f"{shares.description}, in {shares.slice_count} slice{'' if shares.slice_count == 1 else 's'}"
        )
    for layer, tops in zip(net.layers, net.tops, strict=True):
        if layer.is_data and layer.record_count and tops and tops[0].shape:
            found["record_count"] = layer.record_count
            per_step = tops[0].shape[0] * parameter.iter_size * solver.size
            found["iterations_per_epoch"] = layer.record_count / per_step
            break
    return found
