"""Which layers read which parameter message: ``pooling_param`` on a Convolution layer does nothing, in Caffe as here."""

from __future__ import annotations

from collections.abc import Iterator

from paratrain.layers.base import LAYERS
from paratrain.proto import LayerParameter

__all__ = ["misplaced_fields", "reads"]

# Messages that are read by other layers than the one they are named after. Types of forks that paratrain does not have are
# here as well.
_IMAGES = ("Data", "ImageData", "MemoryData", "WindowData", "AnnotatedData", "VideoData", "SegData", "DenseImageData")
_READERS: dict[str, tuple[str, ...]] = {
    "bn_param": ("BN", "SyncBN", "BatchNorm"),
    "batch_norm_param": ("BatchNorm", "BN", "SyncBN"),
    "convolution_param": ("Convolution", "Deconvolution", "Im2col", "DepthwiseConvolution", "ConvolutionDepthwise"),
    "data_param": ("Data", "AnnotatedData", "ImageData", "WindowData"),  # the last two read its prefetch
    "hinge_loss_param": ("HingeLoss",),
    "image_data_param": ("ImageData", "SegData"),
    "infogain_loss_param": ("InfogainLoss",),
    "norm_param": ("Normalize",),
    "recurrent_param": ("RNN", "LSTM"),
    "relu_param": ("ReLU", "ReLU6"),
    "smooth_l1_loss_param": ("SmoothL1Loss", "L1Loss"),
    "softmax_param": ("Softmax", "SoftmaxWithLoss", "InfogainLoss", "FocalLoss", "MultiBoxLoss"),
    "transform_param": _IMAGES,
}


def reads(layer_type: str, field_name: str) -> bool:
    """Whether layers of this type read the message ``field_name`` of a LayerParameter ("pooling_param")."""
    if field_name == "loss_param":
        return layer_type.endswith("Loss") or layer_type == "Accuracy"
    if field_name in _READERS:
        return layer_type in _READERS[field_name]
    return layer_type.lower() == field_name.removesuffix("_param").replace("_", "")


def misplaced_fields(parameter: LayerParameter) -> Iterator[str]:
    """Yield a sentence for each message of another layer type that is given to a layer.

    Types that were registered from outside paratrain read what they like, and so does Python.
    """
    kind = parameter.type
    if kind not in LAYERS or not LAYERS.get(kind).__module__.startswith("paratrain."):
        return
    for field, _ in parameter.ListFields():
        if field.message_type is None or not field.name.endswith("_param") or reads(kind, field.name):
            continue
        readers = [name for name in LAYERS.names() if reads(name, field.name)]
        owner = f"layers of type {', '.join(readers)} read" if readers else "no layer of paratrain reads"
        yield (
            f"layer '{parameter.name}' ({kind}): {field.name} is given, which {owner}; it does nothing here. "
            "Remove it, or change the type"
        )
