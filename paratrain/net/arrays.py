"""The interface of pycaffe's Net: arrays in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import is_hdf5
from paratrain.data.tensor_files import is_tensor_file, read_tensors
from paratrain.errors import NetError, ShapeMismatchError
from paratrain.net import hdf5_weights
from paratrain.net.batches import Collected, batches
from paratrain.net.layer_callbacks import LayerCallback, LayerCallbacks, settle
from paratrain.net.names import NameInterface, did_you_mean
from paratrain.proto import NetParameter, read_binary, write_binary

if TYPE_CHECKING:
    from paratrain.blob import Blob
    from paratrain.layers.memory_data import MemoryDataLayer
    from paratrain.net.net import Net

__all__ = ["ArrayInterface"]

Arrays = dict[str, npt.NDArray[Any]]
Path = str | os.PathLike[str]


class ArrayInterface(NameInterface):
    """What scripts written for pycaffe call on a net; mixed into Net.

    ``net.blobs[name].data``, ``net.params[layer][i].diff`` and the like are arrays that alias the blobs.
    """

    if TYPE_CHECKING:
        layer_callbacks: LayerCallbacks

        @property
        def tops(self) -> list[list[Blob]]: ...
        def forward_from_to(self, start: int = 0, end: int | None = None) -> float: ...
        def backward_from_to(self, start: int | None = None, end: int = 0) -> None: ...
        def share_trained_layers_with(self, other: Net) -> None: ...
        def copy_trained_layers_from(self, source: NetParameter) -> None: ...
        def to_proto(self, write_diff: bool = False) -> NetParameter: ...

    # -- running -------------------------------------------------------------------------------------------------

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: npt.ArrayLike,
    ) -> Arrays:
        """Run the net forward and return the data of its outputs by name: those of layer ``end`` where that is given.

        ``inputs`` are copied into the blobs of their names first: all inputs of the net, or none, in the batch size that the
        net has. ``start`` and ``end`` name the first and the last layer to run; with ``start``, ``inputs`` may be other blobs.
        ``blobs`` names more blobs to return. The arrays alias the blobs.

        Raises NetError for a name that does not exist, ShapeMismatchError for an input that does not fit.
        """
        more = self._check_blobs(blobs, "blobs")
        first, last = self._layer_range(start, end, 0, len(self.layers) - 1)
        if inputs:
            self._check_inputs(inputs, start)
        for name, values in inputs.items():
            self._fill(name, values, "data")
        self.forward_from_to(first, last)
        if end is None:
            named = [(name, self.blobs[name]) for name in self.output_names]
        else:
            named = list(zip(self.top_names[end], self.tops[last], strict=True))
        return {name: blob.data for name, blob in [*named, *more]}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **gradients: npt.ArrayLike,
    ) -> Arrays:
        """Run the net backward and return the diffs of its inputs by name: of the bottoms of ``end`` where that is given.

        ``gradients`` are copied into the diffs of the blobs of their names first: outputs of the net, or tops of ``start``;
        others keep what they hold. ``start`` names the layer to begin with (the last one where None) and ``end`` the one to
        stop at; ``diffs`` names more blobs whose diffs to return. Gradients of parameters are added to what they hold. Raises
        as :meth:`forward` does.
        """
        more = self._check_blobs(diffs, "diffs")
        last, first = self._layer_range(end, start, 0, len(self.layers) - 1)
        for name, values in gradients.items():
            self._fill(name, values, "diff")
        self.backward_from_to(first, last)
        names = self.input_names if end is None else self.bottom_names[end]
        return {name: blob.diff for name, blob in [*((name, self.blobs[name]) for name in names), *more]}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: npt.ArrayLike) -> Arrays:
        """Run forward over any number of samples, batch by batch, and return copies of the outputs, a row for each sample.

        ``inputs`` are arrays for all inputs of the net; a last batch that is not full is filled with zeros, whose rows are
        left out. An output without an axis for samples, such as a loss, gives a row for each batch (with the zeros in it).
        """
        collected = Collected()
        for batch, count, size in batches(inputs, self._batch_size()):
            collected.add(self.forward(blobs, None, None, **batch), count, size)
        return collected.arrays()

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: npt.ArrayLike
    ) -> tuple[Arrays, Arrays]:
        """As :meth:`forward_all`, running backward after each batch: returns the data by name, and the diffs by name.

        ``arrays`` are samples for all inputs of the net, if it has inputs, and gradients for its outputs, if there is no loss.
        """
        data, gradients = Collected(), Collected()
        unknown = [name for name in arrays if name not in {*self.input_names, *self.output_names}]
        if unknown:
            raise NetError(
                f"forward_backward_all: '{unknown[0]}' is neither an input nor an output of the net"
                + did_you_mean(unknown[0], [*self.input_names, *self.output_names])
            )
        for batch, count, size in batches(arrays, self._batch_size()):
            forward = {name: values for name, values in batch.items() if name in self.input_names}
            backward = {name: values for name, values in batch.items() if name not in self.input_names}
            data.add(self.forward(blobs, None, None, **forward), count, size)
            gradients.add(self.backward(diffs, None, None, **backward), count, size)
        return data.arrays(), gradients.arrays()

    def _forward(self, start: int, end: int) -> float:
        """Run layers number ``start`` to ``end`` (included); returns their part of the loss."""
        return self.forward_from_to(self._check_number(start), self._check_number(end))

    def _backward(self, start: int, end: int) -> None:
        """Run layers number ``start`` down to ``end`` (included) backward."""
        self.backward_from_to(self._check_number(start), self._check_number(end))

    def before_forward(self, callback: LayerCallback) -> None:
        """Call ``callback(number)`` before each layer of a forward pass from now on, with its number in ``layers``."""
        self.layer_callbacks.before_forward.append(callback)

    def after_forward(self, callback: LayerCallback) -> None:
        """Call ``callback(number)`` after each layer of a forward pass: its tops hold what it has made of them."""
        self.layer_callbacks.after_forward.append(callback)

    def before_backward(self, callback: LayerCallback) -> None:
        """Call ``callback(number)`` before each layer of a backward pass, also where backward passes the layer by."""
        self.layer_callbacks.before_backward.append(callback)

    def after_backward(self, callback: LayerCallback) -> None:
        """Call ``callback(number)`` after each layer of a backward pass, also where backward passes the layer by."""
        if not getattr(callback, "exchanges_gradients", False):  # an exchange does so of itself, as the solver says
            self.layer_callbacks.after_backward.append(callback)

    def settle_arrays(self) -> None:
        """Bring the newest values to the plain arrays that scripts hold.

        A net whose context says ``keeps_arrays`` does so after each pass; others show new values to who asks anew.
        """
        settle(self.blobs.values())

    def set_input_arrays(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Give the net's MemoryData layer samples (n, C, H, W) and their n labels, to be handed out batch by batch.

        n is a multiple of its batch size. Raises DataError where the arrays do not fit, NetError without such a layer.
        """
        for layer in self.layers:
            if layer.type == "MemoryData":
                cast("MemoryDataLayer", layer).reset(data, labels)
                return
        raise NetError("set_input_arrays(data, labels) feeds a MemoryData layer, and this net has none")

    _set_input_arrays = set_input_arrays

    # -- weights -------------------------------------------------------------------------------------------------

    def copy_from(self, path: Path) -> None:
        """Copy weights from a caffemodel, or from an HDF5, npz or safetensors file of weights, by layer name. Raises
        SnapshotError, which says so of a file that is not there, and ShapeMismatchError.
        """
        if is_hdf5(os.fspath(path)):
            self.load_hdf5(path)
        elif is_tensor_file(path):
            hdf5_weights.copy_arrays(self._net, read_tensors(path).layers)
        else:
            self.copy_trained_layers_from(read_binary(os.fspath(path), NetParameter))

    def share_with(self, other: Net) -> None:
        """Use the parameters of equally named layers of ``other``, in its memory."""
        self.share_trained_layers_with(other)

    def save(self, path: Path) -> None:
        """Write the weights to a caffemodel file; the file is whole or not there."""
        write_binary(os.fspath(path), self.to_proto())

    def save_hdf5(self, path: Path, write_diff: bool = False) -> None:
        """Write the weights (and gradients, when asked) to an HDF5 file of Caffe's layout; it is whole or not there."""
        hdf5_weights.save(self._net, os.fspath(path), write_diff)

    def load_hdf5(self, path: Path) -> None:
        """Copy weights from an HDF5 file of Caffe's layout, by layer name. Raises SnapshotError, ShapeMismatchError."""
        hdf5_weights.load(self._net, os.fspath(path))

    # -- helpers -------------------------------------------------------------------------------------------------

    @property
    def _net(self) -> Net:
        return cast("Net", self)

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f"the net has no blob '{name}'" + did_you_mean(name, self.blobs))
        return self.blobs[name]

    def _check_blobs(self, names: Sequence[str] | None, argument: str) -> list[tuple[str, Blob]]:
        if isinstance(names, str):
            raise TypeError(f"{argument}='{names}': give a list of names, [{names!r}]")
        return [(name, self._blob(name)) for name in names or ()]

    def _layer_range(self, lower: str | None, upper: str | None, first: int, last: int) -> tuple[int, int]:
        first = first if lower is None else self._layer_index(lower)
        last = last if upper is None else self._layer_index(upper)
        if first > last and lower is not None and upper is not None:
            raise NetError(
                f"layer '{upper}' comes before '{lower}' in the net, so that there is nothing to run from one to the other"
            )
        return first, last

    def _layer_index(self, name: str) -> int:
        if name not in self.layer_names:
            also = "; it is a blob, and start and end name layers" if name in self.blobs else ""
            raise NetError(f"the net has no layer '{name}'" + (also or did_you_mean(name, self.layer_names)))
        return self.layer_names.index(name)

    def _check_number(self, number: int) -> int:
        if not 0 <= number < len(self.layers):
            raise NetError(f"there is no layer number {number}: the net has {len(self.layers)}, from 0")
        return number

    def _check_inputs(self, given: Mapping[str, object], start: str | None) -> None:
        """Raise NetError for a blob that the pass would overwrite, and where an input is missing, which would keep old values."""
        names = self.input_names
        for name in given:
            self._blob(name)
            if name not in names and start is None:
                raise NetError(
                    f"forward: '{name}' is no input of the net, and the pass would overwrite what is given; its inputs are "
                    f"{', '.join(names) or 'none'}. Say start=LAYER to begin within the net"
                )
        missing = [f"'{name}'" for name in names if name not in given]
        if missing and start is None:
            raise NetError(
                f"forward: {', '.join(missing)} missing: give arrays for all inputs of the net, or for none and write into "
                "net.blobs[...].data before"
            )

    def _batch_size(self) -> int:
        first: Blob | None = next(iter(self.blobs.values()), None)
        if first is None or not first.shape:
            raise NetError("the net's first blob has no axis for samples, by which batches could be made")
        return first.shape[0]

    def _fill(self, name: str, values: npt.ArrayLike, half: str) -> None:
        target: npt.NDArray[Any] = getattr(self._blob(name), half)
        given = np.asarray(values)
        if given.shape != target.shape and not _fits(given.shape, target.shape):
            raise ShapeMismatchError(
                f"blob '{name}' has shape {target.shape}; the array given for its {half} has {given.shape} "
                f"(net.blobs['{name}'].reshape(...) changes the blob's)"
            )
        target[...] = given.reshape(target.shape) if given.size == target.size == 1 else given


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether pycaffe takes such an array: as many samples, and the rest by numpy's rules of broadcasting. One number is one."""
    if int(np.prod(given)) == int(np.prod(wanted)) == 1:
        return True
    if not given or not wanted or given[0] != wanted[0]:
        return False
    try:
        return np.broadcast_shapes(given, wanted) == wanted
    except ValueError:
        return False
