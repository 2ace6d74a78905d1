"""What losses share: their shape, how they are normalized, and how labels are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import LayerError, ShapeMismatchError
from paratrain.layers.base import Layer
from paratrain.layers.checks import refuse_in_place
from paratrain.proto import LossParameter

__all__ = [
    "LOG_THRESHOLD",
    "LossLayer",
    "check_label_count",
    "check_one_label_each",
    "loss_normalization",
    "normalizer",
    "read_labels",
    "wrong_label",
]

LOG_THRESHOLD = 1e-20
"""The least probability whose logarithm Caffe takes (kLOG_THRESHOLD)."""


class LossLayer(Layer):
    """Two bottoms (N, ...) of equal N, predictions and what they should be; the first top is one value, of shape ().

    The diff of that top holds its ``loss_weight`` (1 unless given). Unless a subclass says otherwise, the second bottom
    are labels, which have no gradient.
    """

    bottom_range = (2, 2)
    top_range = (1, 1)
    auto_top_blobs = True
    is_loss = True

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        if bottom[0].shape[:1] != bottom[1].shape[:1] or not bottom[0].shape:
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} and {self.bottom_name(1)} {bottom[1].shape} "
                "must have the same first axis, the batch",
                ShapeMismatchError,
            )
        top[0].reshape()

    def refuse_label_gradient(self, propagate_down: Sequence[bool]) -> None:
        """Raise LayerError if a gradient by the labels is asked for."""
        if propagate_down[1]:
            raise self.error(f"has no gradient by {self.bottom_name(1)}, the labels; remove its propagate_down")

    def top_weight(self, top: Blob) -> float:
        """The diff of the loss: its weight, on the host."""
        return float(top.read_diff(None).reshape(-1)[0])


def loss_normalization(layer: Layer) -> int:
    """Return ``normalization`` of ``loss_param``, or what the old ``normalize`` stands for if only that is given."""
    parameter = layer.parameter.loss_param
    for field in ("pre_fixed_normalizer", "weight_by_label_freqs", "class_weighting"):
        value = getattr(parameter, field)
        given = len(value) > 0 if field == "class_weighting" else parameter.HasField(field) and bool(value)
        if given:
            raise layer.error(f"loss_param.{field} belongs to a fork of Caffe and is not supported; remove it")
    if parameter.HasField("normalize") and not parameter.HasField("normalization"):
        return LossParameter.VALID if parameter.normalize else LossParameter.BATCH_SIZE
    if parameter.normalization not in (
        LossParameter.FULL,
        LossParameter.VALID,
        LossParameter.BATCH_SIZE,
        LossParameter.NONE,
    ):
        name = LossParameter.NormalizationMode.Name(parameter.normalization)
        raise layer.error(f"normalization {name} is not supported; choose FULL, VALID, BATCH_SIZE or NONE")
    return parameter.normalization


def normalizer(mode: int, outer: int, inner: int, valid_count: int) -> float:
    """Return what a sum of losses is divided by, at least 1.

    FULL: all ``outer * inner`` labels; VALID: those not ignored; BATCH_SIZE: ``outer``; NONE: 1.
    """
    counts: dict[int, int] = {
        LossParameter.FULL: outer * inner,
        LossParameter.VALID: valid_count,
        LossParameter.BATCH_SIZE: outer,
        LossParameter.NONE: 1,
    }
    # Where every label is ignored the loss is 0, not 0 / 0.
    return float(max(counts[mode], 1))


def check_label_count(layer: Layer, scores: Blob, labels: Blob, axis: int) -> None:
    """Raise ShapeMismatchError unless there is a label for each position of ``scores``, with classes on ``axis``."""
    wanted = scores.count_between(0, axis) * scores.count_between(axis + 1)
    if labels.count != wanted:
        raise layer.error(
            f"{layer.bottom_name(0)} {scores.shape} with classes on axis {axis} needs {wanted} labels; "
            f"{layer.bottom_name(1)} {labels.shape} has {labels.count}",
            ShapeMismatchError,
        )


def check_one_label_each(layer: Layer, bottom: Sequence[Blob]) -> None:
    """Raise ShapeMismatchError unless the second bottom holds one label for each sample of the first."""
    if bottom[1].count != bottom[0].shape[0]:
        raise layer.error(
            f"{layer.bottom_name(0)} {bottom[0].shape} needs {bottom[0].shape[0]} labels, one for each sample; "
            f"{layer.bottom_name(1)} {bottom[1].shape} has {bottom[1].count}",
            ShapeMismatchError,
        )


def read_labels(
    layer: Layer, blob: Blob, class_count: int, inner: int, ignore_label: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """Return the labels (outer * inner,) as integers, and which of them count: a mask, or None where all do.

    Labels are read on the host, where a data layer has put them, so that a GPU need not be waited for. Raises
    LayerError for one that is neither a class nor ``ignore_label``.
    """
    values: npt.NDArray[Any] = blob.read_data(None).reshape(-1)
    good = (values > -1) & (values < class_count)  # False for NaN; fractions are cut off below
    ignored = np.trunc(values) == ignore_label if ignore_label is not None else None
    fine = good if ignored is None else good | ignored
    if not fine.all():
        position = int(np.argmin(fine))
        raise wrong_label(layer, class_count, inner, position, float(values[position]))
    labels = values.astype(np.int64)
    if ignored is None or not ignored.any():
        return labels, None
    return labels, ~ignored


def wrong_label(layer: Layer, class_count: int, inner: int, position: int, label: float) -> LayerError:
    """Return the error for a label, ``position`` counted over (outer, inner), that is none of the classes."""
    row, pixel = divmod(position, inner)
    where = f"at position {row} of the batch" + (f", pixel {pixel}" if inner > 1 else "")
    return layer.error(
        f"{layer.bottom_name(1)}: the label {label:g} {where} is out of range; "
        f"there are {class_count} classes, so labels go from 0 to {class_count - 1}"
    )
