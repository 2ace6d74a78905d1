"""What a backend offers to the layers.

A backend is an array module (``xp``: numpy, or cupy), the device its arrays lie on, and primitives: objects built once
for a geometry and then run on arrays of just that geometry. Layers keep Caffe's meaning; primitives do the arithmetic.
Every array that a primitive takes is a plain C-contiguous (N, C, spatial ...) array of the backend, owned by the caller.
"""

from __future__ import annotations

import abc
import enum
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from paratrain.blob.synced_memory import Device
from paratrain.registry import Registry

__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "DEFAULT_BACKEND",
    "MOST_ADDED",
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
    "UpdateRule",
    "create_backend",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvolutionGeometry:
    """Sizes of a convolution over any number of spatial axes.

    Bottom (batch, channels, *spatial), weights (output_channels, channels / groups, *kernel),
    top (batch, output_channels, *output_spatial); output axis = (in + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1.
    """

    batch: int
    channels: int
    spatial: tuple[int, ...]
    output_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def output_spatial(self) -> tuple[int, ...]:
        sizes = zip(self.spatial, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        return tuple((n + 2 * pad - (dilation * (k - 1) + 1)) // stride + 1 for n, k, stride, pad, dilation in sizes)


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


class PoolMethod(enum.Enum):
    """What a pooling does with a window: its maximum, its average, or one of its pixels drawn by their values."""

    MAX = "MAX"
    AVE = "AVE"
    STOCHASTIC = "STOCHASTIC"


@dataclass(frozen=True)
class PoolingGeometry:
    """Sizes of a pooling over (N, C, H, W); ``output`` is (height, width) of the top, rounded as Caffe does.

    Windows may reach over the padded bottom and right edge. MAX takes what lies inside the image, the first of equals in
    row order; AVE divides the sum by the part of the window that lies inside the padded image. STOCHASTIC has no padding
    and takes the first pixel, in row order, at which the running sum reaches (1 - u) times the sum of the window, u being
    a number that is given for each window; the first pixel where none does.
    """

    method: PoolMethod
    batch: int
    channels: int
    spatial: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    output: tuple[int, int]


class Pooling(Protocol):
    """A pooling of one geometry."""

    def forward(self, bottom: Any, top: Any, mask: Any | None) -> None:
        """Write the top and, for MAX where ``mask`` is given, the index y * width + x of each maximum as a float.

        For STOCHASTIC ``mask`` must be given and hold the u of each window, in [0, 1); it is overwritten.
        """

    def backward(self, bottom: Any, top_diff: Any, bottom_diff: Any) -> None:
        """Write bottom_diff. ``bottom`` is that of the last forward pass; the top may hold something else by now."""


@dataclass(frozen=True)
class LocalResponseGeometry:
    """Local response normalization over (N, C, *spatial): ``y = x (k + alpha / size * sum of x^2 over size channels)^-beta``."""

    shape: tuple[int, ...]
    size: int
    alpha: float
    beta: float
    k: float


class LocalResponseNormalization(Protocol):
    """LRN across channels, of one geometry. It keeps what backward needs of the last forward pass."""

    def forward(self, bottom: Any, top: Any) -> None:
        """Write the top."""

    def backward(self, bottom: Any, top: Any, top_diff: Any, bottom_diff: Any) -> None:
        """Write bottom_diff. ``bottom`` and ``top`` are those of the last forward pass."""


@dataclass(frozen=True)
class MomentumRule:
    """V = momentum V + rate gradient; w = w - V. One history, V."""

    momentum: float


@dataclass(frozen=True)
class AdamRule:
    """M = momentum M + (1 - momentum) gradient; S = momentum2 S + (1 - momentum2) gradient^2;
    w = w - rate correction M / (sqrt(S) + delta). Two histories, M and S.
    """

    momentum: float
    momentum2: float
    correction: float
    delta: float


UpdateRule = MomentumRule | AdamRule

MOST_ADDED = 2
"""The most gradients that a :class:`FusedUpdate` adds."""


class FusedUpdate(Protocol):
    """An update of flat arrays in as few passes over memory as the backend can; it does not keep what it subtracts."""

    def begin(self, rule: UpdateRule, data: Any, diffs: Sequence[Any], history: Sequence[Any]) -> None:
        """Fix what all ranges of a step have in common; the arrays are the caller's and used until the next call.

        ``diffs`` are at most ``MOST_ADDED``.
        """

    def run(self, start: int, stop: int, *, rate: float, decay: float, scale: float, guarded: bool = False) -> bool:
        """Update values ``start`` to ``stop`` with the gradient ``scale * (sum of diffs) + decay * data``.

        A ``guarded`` update returns False where the gradient is not finite; it changes no data from there on.
        """


class Backend(abc.ABC):
    """One way to compute: where arrays lie and who does the arithmetic. Create one with :func:`create_backend`."""

    name: str
    xp: Any
    """The array module on which layers run their plain array code."""
    device: Device | None
    """Where arrays lie; None is the host."""

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

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Return when all work given to the backend is done; for timing."""


BACKENDS: Registry[type[Backend]] = Registry("backend")


DEFAULT_BACKEND = "onednn"
BACKEND_VARIABLE = "PARATRAIN_BACKEND"
"""The environment variable that names the backend of whoever does not say which one."""
_told: set[str] = set()


def create_backend(name: str | None = None) -> Backend:
    """Return a new backend: ``name``, else what PARATRAIN_BACKEND names, else DEFAULT_BACKEND.

    Where that cannot be used on this machine it is the numpy one, with a line in the log: a warning where somebody asked.
    Raises UnknownNameError for a name that nobody registered.
    """
    asked = name or os.environ.get(BACKEND_VARIABLE)
    kind = BACKENDS.get(asked or DEFAULT_BACKEND)
    problem = kind.problem()
    if problem is not None:
        if problem not in _told:
            _told.add(problem)
            level = logging.WARNING if asked else logging.INFO
            logger.log(level, "numpy computes, more slowly: the backend %s cannot be used here: %s", kind.name, problem)
        kind = BACKENDS.get("numpy")
    return kind()
