"""The interface of pycaffe's Net: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from paratrain.blob import SyncedMemory
from paratrain.data.hdf5 import is_hdf5
from paratrain.errors import NetError, ShapeMismatchError
from paratrain.net import hdf5_weights
from paratrain.proto import NetParameter, read_binary, write_binary

if TYPE_CHECKING:
    from paratrain.blob import Blob
    from paratrain.layers.base import Layer
    from paratrain.layers.memory_data import MemoryDataLayer
    from paratrain.net.net import Net

__all__ = ["ArrayInterface"]

Arrays = dict[str, npt.NDArray[Any]]


class ArrayInterface:
    """What scripts written for pycaffe call on a net; mixed into Net.

    ``net.blobs[name].data``, ``net.params[layer][i].diff`` and the like are arrays that alias the blobs.
    """

    if TYPE_CHECKING:
        layers: list[Layer]
        layer_names: list[str]

        @property
        def output_names(self) -> list[str]: ...
        @property
        def input_names(self) -> list[str]: ...
        @property
        def top_names(self) -> dict[str, list[str]]: ...
        @property
        def blobs(self) -> dict[str, Blob]: ...
        def forward_from_to(self, start: int = 0, end: int | None = None) -> float: ...
        def backward_from_to(self, start: int | None = None, end: int = 0) -> None: ...
        def share_trained_layers_with(self, other: Net) -> None: ...
        def copy_trained_layers_from(self, source: NetParameter) -> None: ...
        def to_proto(self, write_diff: bool = False) -> NetParameter: ...

    @property
    def inputs(self) -> list[str]:
        """The names of the blobs that Input layers make."""
        return self.input_names

    @property
    def outputs(self) -> list[str]:
        """The names of the blobs that no layer reads."""
        return self.output_names

    @property
    def _layer_names(self) -> list[str]:  # pycaffe scripts use this name
        return self.layer_names

    @property
    def layer_dict(self) -> dict[str, Layer]:
        """The layers by name."""
        return dict(zip(self.layer_names, self.layers, strict=True))

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: npt.ArrayLike,
    ) -> Arrays:
        """Run the net forward and return the data of its outputs by name.

        ``inputs`` are copied into the blobs of their names first; ``start`` and ``end`` name the first and the last layer
        to run; ``blobs`` names more blobs to return. The arrays alias the blobs. Raises NetError for an unknown name and
        ShapeMismatchError for an input of another shape.
        """
        for name, values in inputs.items():
            self._fill(name, values, "data")
        first = 0 if start is None else self._layer_index(start)
        last = None if end is None else self._layer_index(end)
        self.forward_from_to(first, last)
        names = self.output_names if end is None else self._tops_of(end)
        return {name: self._blob(name).data for name in [*names, *(blobs or ())]}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **gradients: npt.ArrayLike,
    ) -> Arrays:
        """Run the net backward and return the diffs of its inputs by name.

        ``gradients`` are copied into the diffs of the blobs of their names first; ``start`` names the layer to begin
        with (the last one where None) and ``end`` the one to stop at; ``diffs`` names more blobs whose diffs to return.
        Gradients of parameters are added to what they hold.
        """
        for name, values in gradients.items():
            self._fill(name, values, "diff")
        first = None if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        self.backward_from_to(first, last)
        return {name: self._blob(name).diff for name in [*self.input_names, *(diffs or ())]}

    def settle_arrays(self) -> None:
        """Bring the newest values to the plain arrays that scripts have asked for before, and may hold on to.

        A net whose context says ``keeps_arrays`` does so after each pass; others show new values to who asks anew.
        """
        for blob in self.blobs.values():
            for memory in (blob.data_memory, blob.diff_memory):
                if isinstance(memory, SyncedMemory):
                    memory.settle()

    def set_input_arrays(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Give the net's MemoryData layer samples (n, C, H, W) and their n labels, to be handed out batch by batch.

        n is a multiple of its batch size. Raises DataError where the arrays do not fit, NetError without such a layer.
        """
        for layer in self.layers:
            if layer.type == "MemoryData":
                cast("MemoryDataLayer", layer).reset(data, labels)
                return
        raise NetError("set_input_arrays(data, labels) feeds a MemoryData layer, and this net has none")

    def copy_from(self, path: str) -> None:
        """Copy weights from a caffemodel, or from an HDF5 file of weights, by layer name."""
        if is_hdf5(path):
            self.load_hdf5(path)
        else:
            self.copy_trained_layers_from(read_binary(path, NetParameter))

    def share_with(self, other: Net) -> None:
        """Use the parameters of equally named layers of ``other``, in its memory."""
        self.share_trained_layers_with(other)

    def save(self, path: str) -> None:
        """Write the weights to a caffemodel file; the file is whole or not there."""
        write_binary(path, self.to_proto())

    def save_hdf5(self, path: str, write_diff: bool = False) -> None:
        """Write the weights (and gradients, when asked) to an HDF5 file of Caffe's layout; it is whole or not there."""
        hdf5_weights.save(self._net, path, write_diff)

    def load_hdf5(self, path: str) -> None:
        """Copy weights from an HDF5 file of Caffe's layout, by layer name. Raises SnapshotError, ShapeMismatchError."""
        hdf5_weights.load(self._net, path)

    @property
    def _net(self) -> Net:
        return cast("Net", self)

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f"the net has no blob '{name}'; it has {', '.join(self.blobs)}")
        return self.blobs[name]

    def _layer_index(self, name: str) -> int:
        if name not in self.layer_names:
            raise NetError(f"the net has no layer '{name}'; it has {', '.join(self.layer_names)}")
        return self.layer_names.index(name)

    def _tops_of(self, layer_name: str) -> list[str]:
        return self.top_names[layer_name]

    def _fill(self, name: str, values: npt.ArrayLike, half: str) -> None:
        target: npt.NDArray[Any] = getattr(self._blob(name), half)
        given = np.asarray(values)
        if given.shape != target.shape:
            raise ShapeMismatchError(
                f"blob '{name}' has shape {target.shape}; the array given for its {half} has {given.shape} "
                f"(net.blobs['{name}'].reshape(...) changes the blob's)"
            )
        target[...] = given
