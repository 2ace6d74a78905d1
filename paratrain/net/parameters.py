"""The learnable parameters of a net: who owns them, who shares them, and the flat arrays they lie in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy.typing as npt

from paratrain.blob import Blob, GradientMemory, Head, Memory, MemorySlice, SyncedMemory
from paratrain.errors import NetError, ShapeMismatchError
from paratrain.layers.base import Layer
from paratrain.proto import ParamSpec

__all__ = ["Allocator", "ParameterEntry", "Parameters"]

Allocator = Callable[[str, int, npt.DTypeLike], Memory]
"""Makes the flat array "data", "diff" or "statistics" of so many values, which may be zeros or the newest values of another
rank that uses the same memory."""


def _private(_name: str, count: int, dtype: npt.DTypeLike) -> Memory:
    return SyncedMemory(count, dtype)


@dataclass
class ParameterEntry:
    """One parameter blob and how it learns. ``start`` to ``stop`` is its place in the flat arrays (see Parameters)."""

    blob: Blob
    layer_name: str
    blob_index: int
    name: str
    """The name by which layers share it; empty where it has none."""
    lr_mult: float
    decay_mult: float
    is_statistic: bool
    users: list[Blob]
    """The blobs of other layers that share its memory."""
    lr_mult_given: bool
    decay_mult_given: bool
    start: int = 0
    stop: int = 0

    @property
    def is_frozen(self) -> bool:
        """Whether it is a weight that no solver changes: its lr_mult is 0."""
        return self.lr_mult == 0 and not self.is_statistic

    @property
    def label(self) -> str:
        """``conv1[0]``, for messages."""
        return f"{self.layer_name}[{self.blob_index}]"


class Parameters:
    """All parameter blobs of a net, each once, in the order of Caffe's ``learnable_params``.

    After :meth:`flatten` the values of the learnable entries lie one after the other in ``data`` and their gradients in
    ``diff``, in the order of the net: backward finishes them from the end towards the start. Frozen ones (lr_mult 0) come
    last in ``data`` and have no place in ``diff``. Running statistics (BatchNorm's), which no solver updates, lie in
    ``statistics`` instead; Caffe counts them among the learnable parameters, so they keep their place in ``entries``.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.entries: list[ParameterEntry] = []
        self.dtype = dtype
        self.data: Memory = SyncedMemory(0, dtype)
        self.diff = GradientMemory(SyncedMemory(0, dtype))
        self.statistics: Memory = SyncedMemory(0, dtype)
        self._by_name: dict[str, ParameterEntry] = {}
        self._apart = self.entries  # those whose gradients do not lie in `diff`

    @property
    def learnable(self) -> list[ParameterEntry]:
        """The entries that are not statistics."""
        return [entry for entry in self.entries if not entry.is_statistic]

    @property
    def learning(self) -> list[ParameterEntry]:
        """The entries that a solver updates: they have a place in ``diff``."""
        return [entry for entry in self.learnable if not entry.is_frozen]

    @property
    def count(self) -> int:
        """The number of learnable values."""
        return sum(entry.blob.count for entry in self.learnable)

    def append(self, layer: Layer, blob_index: int, spec: ParamSpec) -> None:
        """Enter blob ``blob_index`` of ``layer``; a name that is known makes it share the memory of the first user.

        Raises NetError or ShapeMismatchError where the blobs or their multipliers do not fit together.
        """
        blob = layer.blobs[blob_index]
        owner = self._by_name.get(spec.name) if spec.name else None
        if owner is not None:
            self._share(owner, layer, blob, spec)
            return
        statistic = blob_index in layer.statistic_blobs or (layer.writes_frozen_blobs and spec.lr_mult == 0)
        entry = ParameterEntry(
            blob=blob,
            layer_name=layer.name,
            blob_index=blob_index,
            name=spec.name,
            lr_mult=0.0 if statistic else spec.lr_mult,
            decay_mult=spec.decay_mult,
            is_statistic=statistic,
            users=[],
            lr_mult_given=spec.HasField("lr_mult"),
            decay_mult_given=spec.HasField("decay_mult"),
        )
        self.entries.append(entry)
        if spec.name:
            self._by_name[spec.name] = entry

    def _share(self, owner: ParameterEntry, layer: Layer, blob: Blob, spec: ParamSpec) -> None:
        strict = spec.share_mode == ParamSpec.STRICT
        if blob.shape != owner.blob.shape if strict else blob.count != owner.blob.count:
            hint = " (share_mode: PERMISSIVE asks only for equal counts)" if strict else ""
            raise layer.error(
                f"parameter '{spec.name}' has shape {blob.shape} here and {owner.blob.shape} in layer "
                f"'{owner.layer_name}', which it is shared with{hint}",
                ShapeMismatchError,
            )
        for field in ("lr_mult", "decay_mult"):
            if spec.HasField(field):
                value = getattr(spec, field)
                if getattr(owner, f"{field}_given") and getattr(owner, field) != value:
                    raise NetError(
                        f"parameter '{spec.name}': {field} is {value:g} in layer '{layer.name}' and "
                        f"{getattr(owner, field):g} in layer '{owner.layer_name}'; layers that share a parameter must agree"
                    )
                setattr(owner, field, value)
                setattr(owner, f"{field}_given", True)
        blob.share_data(owner.blob)
        blob.share_diff(owner.blob)
        owner.users.append(blob)

    def flatten(self, allocate: Allocator = _private) -> None:
        """Move all parameters into flat arrays taken from ``allocate(name, count, dtype)``; values and sharing are kept."""
        learning, statistics = self.learning, [entry for entry in self.entries if entry.is_statistic]
        frozen = [entry for entry in self.learnable if entry.is_frozen]
        self._apart = [*frozen, *statistics]
        self.diff = GradientMemory(allocate("diff", sum(entry.blob.count for entry in learning), self.dtype))
        self.data = allocate("data", sum(entry.blob.count for entry in self.learnable), self.dtype)
        self.statistics = allocate("statistics", sum(entry.blob.count for entry in statistics), self.dtype)
        self._move(learning, self.data, self.diff)
        self._move(frozen, self.data, None, start=self.diff.count)
        self._move(statistics, self.statistics, None)

    def clear_diffs(self) -> None:
        """Set all gradients to zero. Those of frozen entries, which ``force_backward`` computes, only where there are any.

        In ``diff`` zeros are written when somebody asks for the gradients; until then an array of it may hold old values.
        """
        self.diff.clear()
        for entry in self._apart:
            memory = entry.blob.diff_memory
            if isinstance(memory, SyncedMemory) and memory.head is not Head.UNINITIALIZED:
                memory.mutable_host()[...] = 0

    @staticmethod
    def _move(entries: list[ParameterEntry], data: Memory, diff: GradientMemory | None, start: int = 0) -> None:
        for entry in entries:
            entry.start, entry.stop = start, start + entry.blob.count
            new_data = MemorySlice(data, entry.start, entry.stop)
            new_diff = None if diff is None else diff.slice(entry.start, entry.stop)
            new_data.mutable_host()[...] = entry.blob.read_data(None).reshape(-1)
            for blob in (entry.blob, *entry.users):
                blob.use_memory(data=new_data, diff=new_diff)
            start = entry.stop
