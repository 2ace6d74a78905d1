"""HDF5Output: writes what passes through a net to an HDF5 file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paratrain.blob import Blob
from paratrain.data.hdf5 import RowWriter
from paratrain.errors import DataError, ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.proto import LayerParameter

__all__ = ["HDF5OutputLayer"]


@register_layer("HDF5Output")
class HDF5OutputLayer(Layer):
    """Writes bottom[0] to the dataset ``data`` and bottom[1] to ``label`` of the file ``file_name``, with four axes each.

    The first forward pass makes the file; each further one appends its rows (where Caffe stops with an error). Blobs of
    fewer than four axes get axes of size 1 behind, as in Caffe; those of more keep them. Of several ranks that train, rank
    r > 0 writes to ``file_name.rank<r>``. No tops, no gradients. Raises DataError where the file cannot be written.
    """

    bottom_range = (2, 2)
    top_range = (0, 0)

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """No: the batches are written in order, to one file."""
        return False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        path = self.parameter.hdf5_output_param.file_name
        if not path:
            raise self.error("hdf5_output_param has no file_name")
        if not Path(path).parent.is_dir():
            raise self.error(f"{path}: there is no folder '{Path(path).parent}' (looked up from {Path.cwd()})")
        if self.context.rank:
            path = f"{path}.rank{self.context.rank}"
        self._writer = RowWriter(path, ("data", "label"))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if bottom[0].shape[:1] != bottom[1].shape[:1] or not bottom[0].shape:
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} and {self.bottom_name(1)} {bottom[1].shape} "
                "must have the same first axis, the batch",
                ShapeMismatchError,
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        try:
            self._writer.append([blob.read_data(None).reshape(_four_axes(blob.shape)) for blob in bottom])
        except DataError as error:
            raise DataError(f"layer '{self.name}' ({self.parameter.type}): {error}") from error

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                self.write_diff(blob)[...] = 0

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_writer"):
            self._writer.close()


def _four_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape + (1,) * (4 - len(shape))
