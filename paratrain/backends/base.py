"""What a backend offers to the layers.

A backend is an array module (``xp``: numpy, or cupy), the device its arrays lie on, and primitives: objects built once
for a geometry and then run on arrays of just that geometry. Layers keep Caffe's meaning; primitives do the arithmetic.
Every array that a primitive takes is a plain C-contiguous (N, C, spatial ...) array of the backend, owned by the caller.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from paratrain.backends.geometry import ConvolutionGeometry, LocalResponseGeometry, PoolingGeometry, PoolMethod
from paratrain.backends.timing import HostTimer, Timer
from paratrain.backends.update_rules import MOST_ADDED, AdamRule, DeviceUpdate, FusedUpdate, MomentumRule, UpdateRule
from paratrain.blob.synced_memory import Device
from paratrain.errors import BackendError, DeviceError
from paratrain.random import uniform_rows
from paratrain.registry import Registry

__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "DEFAULT_BACKEND",
    "MOST_ADDED",
    "PRECISIONS",
    "PRECISION_VARIABLE",
    "AdamRule",
    "Backend",
    "Convolution",
    "ConvolutionGeometry",
    "FusedUpdate",
    "Im2col",
    "LocalResponseGeometry",
    "LocalResponseNormalization",
    "MomentumRule",
    "PoolMethod",
    "Pooling",
    "PoolingGeometry",
    "Recording",
    "UpdateRule",
    "create_backend",
    "warn_once",
]

logger = logging.getLogger(__name__)


class Convolution(Protocol):
    """A convolution of one geometry and its gradients. Gradients of parameters are added, that of the bottom is written."""

    def forward(self, bottom: Any, weights: Any, bias: Any | None, top: Any) -> None:
        """top = weights * bottom + bias, where * is the cross-correlation that Caffe calls convolution."""

    def backward_data(self, top_diff: Any, weights: Any, bottom_diff: Any) -> None:
        """bottom_diff = the gradient by the bottom."""

    def backward_weights(self, bottom: Any, top_diff: Any, weights_diff: Any) -> None:
        """weights_diff += the gradient by the weights."""

    def backward_bias(self, top_diff: Any, bias_diff: Any) -> None:
        """bias_diff (output_channels,) += the sum of top_diff over images and pixels."""


class Im2col(Protocol):
    """The windows of a convolution as columns (batch, channels * kernel values, *output_spatial), of one geometry."""

    def forward(self, bottom: Any, columns: Any) -> None:
        """Write the columns: channel (c, *offset) holds what the kernel's value at ``offset`` meets in channel c."""

    def backward(self, columns_diff: Any, bottom_diff: Any) -> None:
        """bottom_diff = for each pixel the sum over all the columns it was copied to."""


class Pooling(Protocol):
    """A pooling of one geometry."""

    def forward(self, bottom: Any, top: Any, mask: Any | None) -> None:
        """Write the top and, for MAX where ``mask`` is given, the index y * width + x of each maximum as a float.

        For STOCHASTIC ``mask`` must be given and hold the u of each window, in [0, 1); it is overwritten.
        """

    def backward(self, bottom: Any, top_diff: Any, bottom_diff: Any) -> None:
        """Write bottom_diff. ``bottom`` is that of the last forward pass; the top may hold something else by now."""


class LocalResponseNormalization(Protocol):
    """LRN across channels, of one geometry. It keeps what backward needs of the last forward pass."""

    def forward(self, bottom: Any, top: Any) -> None:
        """Write the top."""

    def backward(self, bottom: Any, top: Any, top_diff: Any, bottom_diff: Any) -> None:
        """Write bottom_diff. ``bottom`` and ``top`` are those of the last forward pass."""


class Recording(Protocol):
    """Work that a backend has recorded."""

    def replay(self) -> None:
        """Give it to the backend again, on the same arrays."""


PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""In what the factors of products are given. Parameters, their gradients, updates and sums are float32 with each of them."""


class Backend(abc.ABC):
    """One way to compute: where arrays lie and who does the arithmetic. Create one with :func:`create_backend`."""

    name: str
    xp: Any
    """The array module on which layers run their plain array code."""
    device: Device | None
    """Where arrays lie; None is the host."""
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    """Those of ``PRECISIONS`` in which this backend computes."""

    has_fast: ClassVar[bool] = False
    """Whether it has faster kernels that do not repeat bit for bit, which ``fast`` allows, and measures some for ``autotune``."""

    def __init__(self, precision: str = "float32", *, fast: bool = False, autotune: bool = False) -> None:
        self.precision = precision

    @classmethod
    def problem(cls) -> str | None:
        """Why this backend cannot be used on this machine; None where it can."""
        return None

    @property
    def description(self) -> str:
        """What computes, for the log."""
        return self.name

    @abc.abstractmethod
    def convolution(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Convolution:
        """Return a convolution for arrays of this geometry and dtype."""

    @abc.abstractmethod
    def im2col(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Im2col:
        """Return what makes columns of arrays of this geometry, of which output_channels and groups must be 1, and dtype."""

    @abc.abstractmethod
    def pooling(self, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> Pooling:
        """Return a pooling for arrays of this geometry and dtype."""

    @abc.abstractmethod
    def local_response_normalization(
        self, geometry: LocalResponseGeometry, dtype: npt.DTypeLike
    ) -> LocalResponseNormalization:
        """Return a local response normalization across channels for arrays of this geometry and dtype."""

    @abc.abstractmethod
    def matrix_product(self, a: Any, b: Any, out: Any, *, accumulate: bool = False) -> None:
        """out = a @ b, or out += a @ b; ``a`` and ``b`` are matrices or transposed views of matrices."""

    def fused_update(self, rule: UpdateRule, dtype: npt.DTypeLike) -> FusedUpdate | None:
        """Return an update of this kind for flat arrays of this dtype; None where the backend has none of its own."""
        return None

    def device_update(self, run_stops: Sequence[int], dtype: npt.DTypeLike) -> DeviceUpdate | None:
        """Return an update of flat arrays of this dtype on the device, whose run r ends before ``run_stops[r]``, where the next
        begins; None where the backend has none.
        """
        return None

    def on_device(self) -> contextlib.AbstractContextManager[object]:
        """A context in which this thread works on the backend's device and in its stream, whatever it has worked on before."""
        return contextlib.nullcontext()

    def alone(self) -> contextlib.AbstractContextManager[object]:
        """The same, in which other threads that ask for it wait."""
        return contextlib.nullcontext()

    can_record: bool = False
    """Whether :meth:`record` does anything."""

    def record(self, run: Callable[[], None]) -> Recording | None:
        """Call ``run`` and return a recording of the work it gives to the backend, none of which is done; None where that
        cannot be recorded: some of it may have been done then.
        """
        return None

    def address(self, array: Any) -> int:
        """The place in memory of the first value of an array of the backend."""
        return int(array.ctypes.data)

    def device_error(self, error: BaseException) -> DeviceError | None:
        """What ``error``, raised by the backend's libraries, says of the device: it is full, lost, or has failed; None where it
        is about something else.
        """
        return None

    def uniform_rows(self, key: int, rows: range, out: Any) -> None:
        """Fill ``out`` (len(rows), inner), an array of the backend, as :func:`paratrain.random.uniform_rows` does."""
        uniform_rows(key, rows, out.shape[1], out, self.xp)

    def add_at(self, target: Any, places: Any, values: Any) -> None:
        """target[places[i]] += values[i], in the order of i where a place is named several times; flat arrays of the backend."""
        self.xp.add.at(target, places, values)

    def put_at(self, target: Any, places: Any, values: Any) -> None:
        """target[places[i]] = values[i], the last of those that name a place; flat arrays of the backend."""
        target[places] = values

    def check_faults(self) -> None:  # noqa: B027  (only devices find something later)
        """Raise the error for what the work given so far has found wrong with its values, if that is known only now.

        To be called whenever the host waits for the results of a pass anyway.
        """

    def timer(self) -> Timer:
        """Return what times the work that is given to the backend from now on."""
        return HostTimer(self.synchronize)

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Return when all work given to the backend is done; for timing."""


BACKENDS: Registry[type[Backend]] = Registry("backend")


DEFAULT_BACKEND = "onednn"
BACKEND_VARIABLE = "PARATRAIN_BACKEND"
"""The environment variable that names the backend of whoever does not say which one."""
PRECISION_VARIABLE = "PARATRAIN_PRECISION"
"""The environment variable that names the precision of whoever does not say which one, on the backends that have it."""
_told: set[str] = set()


def create_backend(
    name: str | None = None, precision: str | None = None, *, fast: bool = False, autotune: bool = False
) -> Backend:
    """Return a new backend: ``name``, else what PARATRAIN_BACKEND names, else DEFAULT_BACKEND. It computes in ``precision``, one
    of PRECISIONS, else in what PARATRAIN_PRECISION names, if it can, else in float32. ``fast`` lets one that has such kernels
    take those whose results do not repeat bit for bit; with ``autotune`` such a one measures which kernels are the quickest.

    Where that cannot be used on this machine it is the numpy one, with a line in the log: a warning where somebody asked.
    That one, and a processor without bfloat16, compute in float32, with a warning. Raises UnknownNameError for a name that
    nobody registered, BackendError for a precision that no such backend has.
    """
    asked = name or os.environ.get(BACKEND_VARIABLE)
    kind = BACKENDS.get(asked or DEFAULT_BACKEND)
    wanted = precision or os.environ.get(PRECISION_VARIABLE) or "float32"
    if wanted not in kind.precisions:
        if precision or wanted not in PRECISIONS:
            raise BackendError(_refusal(kind, wanted))
        wanted = "float32"
    problem = kind.problem()
    if problem is not None:
        if problem not in _told:
            _told.add(problem)
            level = logging.WARNING if asked else logging.INFO
            logger.log(level, "numpy computes, more slowly: the backend %s cannot be used here: %s", kind.name, problem)
        kind = BACKENDS.get("numpy")
        if wanted not in kind.precisions:
            warn_once(f"float32 computes: the backend {kind.name} has no {wanted}")
            wanted = "float32"
    return kind(wanted, fast=fast, autotune=autotune) if kind.has_fast else kind(wanted)


def warn_once(message: str) -> None:
    """Write a warning that concerns the whole process to the log, unless it is there."""
    if message not in _told:
        _told.add(message)
        logger.warning("%s", message)


def _refusal(kind: type[Backend], precision: str) -> str:
    if precision not in PRECISIONS:
        return f"there is no precision '{precision}'; there are {', '.join(PRECISIONS)}"
    others = [name for name in BACKENDS.names() if precision in BACKENDS.get(name).precisions]
    advice = f", or a backend that has it: {', '.join(others)}" if others else ""
    return f"the backend {kind.name} has no {precision}; give --precision {' or '.join(kind.precisions)}{advice}"
