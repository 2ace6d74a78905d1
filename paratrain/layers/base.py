"""The contract that every layer keeps, and the table of layer types."""

from __future__ import annotations

import abc
import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from paratrain.activity import Activity
from paratrain.backends.base import Backend
from paratrain.blob import Blob, BlobVector, GradientSlice
from paratrain.data.options import DataOptions
from paratrain.errors import LayerError, NetError
from paratrain.proto import LayerParameter, Phase
from paratrain.proto.fork_layers import fork_of_layer
from paratrain.registry import Registry

__all__ = ["LAYERS", "Clock", "Layer", "LayerContext", "create_layer", "register_layer"]


@dataclass
class Clock:
    """Which step of the training is being computed: with the seed, this names every random number."""

    iteration: int = 0
    sub_iteration: int = 0
    """The pass of ``iter_size`` within the iteration."""


def _alone(_array: Any) -> None:
    """The sum over one rank."""


@dataclass
class LayerContext:
    """What a layer may know of the world around its net."""

    backend: Backend
    phase: Phase
    dtype: npt.DTypeLike = np.float32
    seed: int = 0
    """The same on every rank."""
    rank: int = 0
    size: int = 1
    """Ranks that share the records: record r, r + size ... are this rank's, r being ``rank``."""
    deal: tuple[int, int] = (0, 1)
    """(rank, size) where ranks share the batches of a TEST net: batch r, r + size ... are this rank's."""
    clock: Clock = field(default_factory=Clock)
    activity: Activity = field(default_factory=Activity)
    """Where this rank says what it is doing."""
    allow_python: bool = True
    """Layers of type Python may run the code that the net names."""
    keeps_arrays: bool = False
    """Data layers copy each batch into their tops' own memory, whose arrays scripts may hold on to."""
    data: DataOptions = field(default_factory=DataOptions)
    """How layers that read ahead do so."""
    plans_memory: bool = False
    """Blobs whose lives do not overlap share memory: only outputs, and what comes from outside, are there after a pass."""
    shapes_only: bool = False
    """The net is only described, never run: layers shape their blobs and leave their memory untouched."""
    sum_over_ranks: Callable[[Any], None] = _alone
    """Replaces a C-contiguous host array by its sum over the ranks that train together, the same bits on each. All of
    them must call it, in the same order; only small arrays should be summed within a pass."""
    loss_scale: float = 1.0
    """What the loss is multiplied by before it goes backward."""
    normalizes_over_ranks: bool = False
    """BatchNorm and BN take mean and variance over the batches of all ranks, as SyncBN does."""


class Layer(abc.ABC):
    """One step of a net: computes top blobs from bottom blobs, and the gradients back.

    The life of a layer is Caffe's. ``set_up`` checks the numbers of blobs, calls ``setup`` (once: read the parameters,
    create ``self.blobs``), ``reshape`` (again whenever a bottom has changed its shape: give the tops their shapes) and
    sets the loss weights. Then ``forward`` and ``backward`` run on blobs that have just those shapes.

    In ``forward`` bottoms are read and tops written. In ``backward`` the diffs of the tops are read; the diff of bottom i
    is written (not added to) where ``propagate_down[i]`` holds; the diffs of ``self.blobs`` are added to where
    ``self.param_propagate_down`` holds (see :meth:`accumulates` for a layer that would rather write them). Layers may
    share memory between bottom and top only where they say so.

    Subclasses state how many blobs they take: ``bottom_range`` and ``top_range`` are (least, most), None for no limit.
    """

    type: ClassVar[str] = ""
    bottom_range: ClassVar[tuple[int, int | None]] = (1, 1)
    top_range: ClassVar[tuple[int, int | None]] = (1, 1)
    equal_bottom_top_count: ClassVar[bool] = False
    auto_top_blobs: ClassVar[bool] = False
    """Tops that the prototxt leaves out are made up to the least number: for losses."""
    is_loss: ClassVar[bool] = False
    """The first top has loss_weight 1 where the prototxt gives none."""
    is_data: ClassVar[bool] = False
    """It brings records in from outside: its time counts as waiting for data."""
    writes_frozen_blobs: ClassVar[bool] = False
    """It may write, in forward, those of ``self.blobs`` that have lr_mult 0: they count as running statistics."""
    keeps_blobs: ClassVar[bool] = False
    """It may use the memory of its bottoms and tops in another pass than its own: nets then leave it there."""
    is_capturable: bool = False
    """Whether the last forward pass, and the backward pass that follows it, only give work to a GPU's stream: nothing is
    allocated, and nothing read or decided on the host. Such passes can be recorded and run again."""
    statistic_blobs: frozenset[int] = frozenset()
    """The indices of those of ``self.blobs`` that are running statistics, which no solver updates (all three of
    BatchNorm): they are kept apart from the learnable ones. A layer may set its own in ``__init__`` or ``setup``."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        self.parameter = parameter
        self.context = context
        self.backend = context.backend
        self.xp = context.backend.xp
        self.name = parameter.name
        self.blobs: list[Blob] = BlobVector(dtype=context.dtype)
        self.param_propagate_down: list[bool] = []
        self.loss_weights: list[float] = []
        self.needs_backward = True
        """Whether backward may follow a forward pass; what only backward reads need not be kept where it is False. A Net
        sets it."""
        self.only_top_with_gradient: int | None = None
        """The top whose diff a layer above writes in every backward pass, where the diffs of all others stay zero; None
        where several are written, or none. A Net sets it."""

    # -- for subclasses ------------------------------------------------------------------------------------------

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:  # noqa: B027  (many layers need none)
        """Read the parameters and create ``self.blobs``. Bottoms have their shapes, tops do not."""

    @abc.abstractmethod
    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops (and buffers of the layer) the shapes that follow from the bottoms'; check that these fit."""

    @abc.abstractmethod
    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write the data of the tops."""

    @abc.abstractmethod
    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Write the diffs of the bottoms and add to the diffs of ``self.blobs``."""

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Whether ``force_backward`` makes gradients flow to this bottom; labels say no."""
        return True

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """Whether ranks may share the batches of a TEST net that has this layer.

        Then what it makes of a batch does not depend on those before, and if it brings data, it brings the batches that
        ``context.deal`` says.
        """
        return not cls.is_data

    def carried_blobs(self) -> Sequence[Blob]:
        """What a forward pass takes over from the one before, beside ``self.blobs``: the state of RNN and LSTM, say.

        The layer owns these blobs, always the same ones, and shapes them in ``setup`` or ``reshape``. Every rank has values
        of its own, which a snapshot keeps. Most layers have none.
        """
        return ()

    @property
    def record_count(self) -> int:
        """Of a layer that brings data: the records in its source; 0 where there is none."""
        return 0

    @property
    def bad_record_count(self) -> int:
        """Of a layer that brings data: how often another record has taken the place of a bad one, in the batches so far."""
        return 0

    def last_keys(self) -> list[str]:
        """Of a layer that brings data: the names of the records of the last batch, as far as it knows them."""
        return []

    def before_replay(self) -> None:  # noqa: B027  (most layers do the same in each pass)
        """A recorded pass is about to run again: write to the GPU's memory what differs from the pass before."""

    def close(self) -> None:  # noqa: B027  (only data layers hold anything)
        """Free threads and files."""

    def share_memory(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:  # noqa: B027  (most layers share none)
        """Put blobs into the memory of others, as far as the layer lets them share it and does not do so in ``reshape``. A net
        may ask for it before ``forward``, to know which memories there are.
        """

    # -- for nets ------------------------------------------------------------------------------------------------

    def set_up(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the numbers of blobs, set the layer up, shape its tops and set its loss weights."""
        self.check_blob_counts(len(bottom), len(top))
        self.setup(bottom, top)
        if not self.param_propagate_down:
            self.param_propagate_down = [True] * len(self.blobs)
        self.reshape(bottom, top)
        self.set_loss_weights(top)

    def set_loss_weights(self, top: Sequence[Blob]) -> None:
        """Fill the diff of every top that counts in the loss with its weight, as Caffe does: backward starts there."""
        given = list(self.parameter.loss_weight)
        if given and len(given) != len(top):
            raise self.error(
                f"loss_weight is given {len(given)} times for {len(top)} tops; give it once for each, or not at all"
            )
        default = [1.0 if self.is_loss and index == 0 else 0.0 for index in range(len(top))]
        self.loss_weights = given or default
        self.fill_loss_diffs(top)

    def fill_loss_diffs(self, top: Sequence[Blob]) -> None:
        """Write the weights of :meth:`set_loss_weights`, times the scale of the loss, on the host and where the backend works."""
        for blob, weight in zip(top, self.loss_weights, strict=True):
            if weight and not self.context.shapes_only:
                blob.diff[...] = weight * self.context.loss_scale
                self.read_diff(blob)  # a recorded pass takes it there

    def loss(self, top: Sequence[Blob]) -> float:
        """The weighted sum of the tops that count in the loss; call it after ``forward``."""
        if not any(self.loss_weights):
            return 0.0
        return sum(
            weight * float(blob.read_data(None).sum(dtype=np.float64))
            for blob, weight in zip(top, self.loss_weights, strict=True)
            if weight
        )

    # -- helpers -------------------------------------------------------------------------------------------------

    def read(self, blob: Blob) -> Any:
        """The blob's data where the backend works, for reading."""
        return blob.read_data(self.backend.device)

    def write(self, blob: Blob) -> Any:
        """The blob's data where the backend works, for writing."""
        return blob.write_data(self.backend.device)

    def read_diff(self, blob: Blob) -> Any:
        """The blob's diff where the backend works, for reading."""
        return blob.read_diff(self.backend.device)

    def write_diff(self, blob: Blob) -> Any:
        """The blob's diff where the backend works, for writing."""
        return blob.write_diff(self.backend.device)

    def accumulates(self, index: int) -> bool:
        """Whether the gradient of ``self.blobs[index]`` is to be added to its diff, for once.

        Where not, nothing has been added since the gradients were cleared: the layer has to write all of the diff, which
        holds old values. A layer that does not ask finds zeros there, and adds.
        """
        memory = self.blobs[index].diff_memory
        return not (isinstance(memory, GradientSlice) and memory.claim())

    def error(self, message: str, kind: builtins.type[LayerError] = LayerError) -> LayerError:
        """Return an error that names this layer: ``raise self.error("...")``."""
        return kind(f"layer '{self.name}' ({self.parameter.type}): {message}")

    def named(self, error: NetError) -> NetError:
        """Return ``error`` itself if it names a layer, else one of the same kind (at least LayerError) that names this."""
        if str(error).startswith("layer "):
            return error
        return self.error(str(error), type(error) if isinstance(error, LayerError) else LayerError)

    def bottom_name(self, index: int) -> str:
        """``bottom[1] 'label'``, for messages."""
        names = self.parameter.bottom
        return f"bottom[{index}] '{names[index]}'" if index < len(names) else f"bottom[{index}]"

    def check_blob_counts(self, bottom_count: int, top_count: int) -> None:
        """Raise LayerError where the layer does not take so many blobs."""
        for what, count, (least, most) in (
            ("bottom", bottom_count, self.bottom_range),
            ("top", top_count, self.top_range),
        ):
            if count < least or (most is not None and count > most):
                wanted = (
                    f"exactly {least}"
                    if least == most
                    else f"at least {least}"
                    if most is None
                    else f"{least} to {most}"
                )
                raise self.error(f"takes {wanted} {what} blobs; the prototxt gives {count}")
        if self.equal_bottom_top_count and bottom_count != top_count:
            raise self.error(
                f"takes as many tops as bottoms; the prototxt gives {bottom_count} bottoms and {top_count} tops"
            )


LAYERS: Registry[type[Layer]] = Registry("layer type")

_OF_BACKENDS: dict[str, dict[str, type[Layer]]] = {}
"""For each backend, the classes that stand in for those of LAYERS in float32 nets."""

L = TypeVar("L", bound=type[Layer])


def register_layer(name: str, *, backend: str | None = None) -> Callable[[L], L]:
    """Return a class decorator that enters a layer under the ``type`` a prototxt calls it by.

    With ``backend`` the class, a subclass of the layer registered without, takes its place in float32 nets on this backend.
    """

    def decorate(layer: L) -> L:
        if backend is None:
            LAYERS.add(name, layer)
            layer.type = name
        else:
            assert issubclass(layer, LAYERS.get(name))
            _OF_BACKENDS.setdefault(backend, {})[name] = layer
        return layer

    return decorate


def create_layer(parameter: LayerParameter, context: LayerContext) -> Layer:
    """Return a new layer of ``parameter.type``, not yet set up. Raises NetError naming the layer for an unknown type."""
    try:
        kind = LAYERS.get(parameter.type)
    except NetError as error:
        fork = fork_of_layer(parameter.type)
        if fork is not None:
            raise LayerError(
                f"layer '{parameter.name}': unknown layer type '{parameter.type}', which is of {fork}; paratrain does not "
                "have it. Remove the layer, or register a class for the type"
            ) from None
        raise LayerError(f"layer '{parameter.name}': {error}") from None
    if context.dtype == np.float32:
        kind = _OF_BACKENDS.get(context.backend.name, {}).get(parameter.type, kind)
    return kind(parameter, context)
