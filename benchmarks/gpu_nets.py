"""The five networks of the GPU's tables, as solvers whose data lie on the GPU already."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fed_net import fed_solver_parameter, feed
from machine import REPOSITORY

if TYPE_CHECKING:
    from paratrain.solvers import Solver

__all__ = ["NETS", "PRECISIONS", "make_solver", "net_file", "recording_message"]

NETS = {
    "lenet": (64, "1x28x28", 5.0),
    "cifar10_quick": (100, "3x32x32", 4.0),
    "caffenet": (256, "3x227x227", 1.2),
    "googlenet": (128, "3x224x224", 1.2),
    "resnet50": (128, "3x224x224", 1.1),
}
"""Name, batch, shape of a sample, and how many times as fast as PyTorch a training step has to be."""
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
RECORDED = "The step is recorded as a graph"


def net_file(name: str) -> str:
    """Where the description of a net is."""
    return str(REPOSITORY / "tests" / "golden" / "nets" / f"{name}.prototxt")


def make_solver(name: str, precision: str, batch: int, shape: str, *, plans_memory: bool = True) -> Solver:
    """SGD with momentum and weight decay on the GPU, for random data that stay where they are.

    Raises AssertionError where no GPU can be used.
    """
    from paratrain.backends import create_backend
    from paratrain.solvers import NetOptions, create_solver

    parameter = fed_solver_parameter(net_file(name), batch, [int(axis) for axis in shape.split("x")])
    backend = create_backend("cupy", precision)
    assert backend.name == "cupy", f"the GPU cannot be used: {type(backend).problem()}"
    solver = create_solver(parameter, backend=backend, seed=1, net_options=NetOptions(plans_memory=plans_memory))
    feed(solver.net, seed=1)
    return solver


@contextlib.contextmanager
def recording_message() -> Iterator[list[str]]:
    """A list that gets what the net says about whether its step could be recorded as a CUDA graph."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("paratrain.net.recorded"), Listener()
    before: Any = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
