"""What a network costs: multiply-adds of each layer, and the memory of a rank that trains it."""

from __future__ import annotations

from dataclasses import dataclass

from paratrain.blob import Blob
from paratrain.check.shapes import ShapedLayer, ShapedNet
from paratrain.comm.tree import receive_buffer_bytes
from paratrain.net import Net

__all__ = ["Memory", "memory", "multiply_adds"]

_CONVOLUTIONS = ("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise")


@dataclass(frozen=True)
class Memory:
    """Bytes that a rank takes for one net. Working memory of single layers and of libraries is not in it."""

    data: int
    """The data of all blobs; blobs that share their memory (in-place tops, splits, reshapes) count once."""
    diff: int
    """The gradients of blobs, in TRAIN."""
    parameters: int
    """The values of the parameters, running statistics included."""
    parameter_diff: int
    history: int
    """What the solver remembers of each learnable value; on the root only."""
    exchange: int
    """Receive buffers of a rank that has children in the tree of ranks. The arrays themselves are sent from where they lie."""

    @property
    def total(self) -> int:
        return self.data + self.diff + self.parameters + self.parameter_diff + self.history + self.exchange


def multiply_adds(shaped: ShapedLayer) -> int:
    """How many multiplications with an addition one forward pass of a layer takes, for layers with matrices of weights.

    Every weight of a convolution is used once for each place of each top, of a deconvolution for each place of each bottom,
    of an inner product once for each row, of a recurrent layer once for each step and stream. Scale, Bias, PReLU and
    BatchNorm: one for each value. Other layers: 0.
    """
    layer = shaped.layer
    bottoms = [blob for blob in shaped.bottoms if blob is not None]
    tops = [blob for blob in shaped.tops if blob is not None]
    if layer is None or not shaped.is_shaped or not tops:
        return 0
    if layer.type in ("Scale", "Bias", "BatchNorm", "PReLU", "BN", "SyncBN"):
        return tops[0].count
    if not layer.blobs:
        return 0
    weights = layer.blobs[0]
    if layer.type in _CONVOLUTIONS and weights.shape[0]:
        return sum(top.count for top in tops) * (weights.count // weights.shape[0])
    if layer.type == "Deconvolution" and weights.shape[0]:
        return sum(bottom.count for bottom in bottoms) * (weights.count // weights.shape[0])
    if layer.type == "InnerProduct":
        outputs = layer.parameter.inner_product_param.num_output
        return tops[0].count // outputs * weights.count if outputs else 0
    if layer.type in ("LSTM", "RNN"):
        steps_and_streams = bottoms[1].count
        return steps_and_streams * sum(blob.count for blob in layer.blobs if blob.axis_count == 2)
    return 0


def memory(shaped: ShapedNet, net: Net | None, *, trains: bool, history_count: int) -> Memory:
    """Return the memory of a net; without ``net``, the net as it would run, gradients of blobs are left out."""
    tops = [blob for one in shaped.layers for blob in one.tops if blob is not None]
    diff = _diff_bytes(net) if net is not None and trains else 0
    entries = shaped.parameters.entries
    values = sum(_bytes(entry.blob) for entry in entries)
    learning = sum(_bytes(entry.blob) for entry in entries if not (entry.is_statistic or entry.is_frozen))
    item_bytes = entries[0].blob.dtype.itemsize if entries else 0
    return Memory(
        data=_unique_data_bytes(tops),
        diff=diff,
        parameters=values,
        parameter_diff=learning if trains else 0,
        history=history_count * learning if trains else 0,
        exchange=receive_buffer_bytes(item_bytes) if trains else 0,
    )


def _unique_data_bytes(blobs: list[Blob]) -> int:
    return sum(_bytes(blob) for blob in {id(blob.data_memory): blob for blob in blobs}.values())


def _diff_bytes(net: Net) -> int:
    """Gradients that backward writes, and the weights of losses."""
    written: dict[int, Blob] = {}
    needs_backward = net.layers_needing_backward
    for index, (bottoms, flows) in enumerate(zip(net.bottoms, net.propagate_down, strict=True)):
        for blob, flow in zip(bottoms, flows, strict=True):
            if flow and needs_backward[index]:
                written[id(blob.diff_memory)] = blob
        for blob, weight in zip(net.tops[index], net.layers[index].loss_weights, strict=True):
            if weight:
                written[id(blob.diff_memory)] = blob
    return sum(_bytes(blob) for blob in written.values())


def _bytes(blob: Blob) -> int:
    return blob.count * blob.dtype.itemsize
