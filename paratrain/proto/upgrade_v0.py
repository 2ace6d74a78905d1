"""Networks of Caffe's first months (2013, "V0"): one message for the settings of all layer types, types in small letters."""

from __future__ import annotations

from paratrain.errors import NetError
from paratrain.proto.caffe_pb2 import NetParameter, V0LayerParameter, V1LayerParameter

__all__ = ["is_v0", "upgrade_v0"]

_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# Where each setting goes, by the layer's type: "message.field". "*" is any type.
_IN_CONV_AND_IP = {"conv": "convolution_param", "innerproduct": "inner_product_param"}
_IN_CONV_AND_POOL = {"conv": "convolution_param", "pool": "pooling_param"}
_IN_DATA = {
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "window_data": "window_data_param",
}
_IN_IMAGES = {"images": "image_data_param"}
_IN_WINDOWS = {"window_data": "window_data_param"}
_TRANSFORM = {"*": "transform_param"}
_DESTINATIONS = {
    "num_output": ("num_output", _IN_CONV_AND_IP),
    "biasterm": ("bias_term", _IN_CONV_AND_IP),
    "weight_filler": ("weight_filler", _IN_CONV_AND_IP),
    "bias_filler": ("bias_filler", _IN_CONV_AND_IP),
    "pad": ("pad", _IN_CONV_AND_POOL),
    "kernelsize": ("kernel_size", _IN_CONV_AND_POOL),
    "group": ("group", {"conv": "convolution_param"}),
    "stride": ("stride", _IN_CONV_AND_POOL),
    "pool": ("pool", {"pool": "pooling_param"}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", {"lrn": "lrn_param"}),
    "alpha": ("alpha", {"lrn": "lrn_param"}),
    "beta": ("beta", {"lrn": "lrn_param"}),
    "k": ("k", {"lrn": "lrn_param"}),
    "source": ("source", {**_IN_DATA, "infogain_loss": "infogain_loss_param"}),
    "scale": ("scale", _TRANSFORM),
    "meanfile": ("mean_file", _TRANSFORM),
    "batchsize": ("batch_size", _IN_DATA),
    "cropsize": ("crop_size", _TRANSFORM),
    "mirror": ("mirror", _TRANSFORM),
    "rand_skip": ("rand_skip", {"data": "data_param", "images": "image_data_param"}),
    "shuffle_images": ("shuffle", _IN_IMAGES),
    "new_height": ("new_height", _IN_IMAGES),
    "new_width": ("new_width", _IN_IMAGES),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", _IN_WINDOWS),
    "det_bg_threshold": ("bg_threshold", _IN_WINDOWS),
    "det_fg_fraction": ("fg_fraction", _IN_WINDOWS),
    "det_context_pad": ("context_pad", _IN_WINDOWS),
    "det_crop_mode": ("crop_mode", _IN_WINDOWS),
}
_COPIED = ("blobs", "blobs_lr", "weight_decay")


def is_v0(net: NetParameter) -> bool:
    """Whether any layer of the net is in the form of V0."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0(net: NetParameter) -> NetParameter:
    """Return ``net`` with its V0 layers as V1 layers; padding layers become the ``pad`` of the layer that they feed.

    Raises NetError for an unknown type, a setting that the layer's type does not have, or a padding layer in a place where it
    cannot be folded away.
    """
    upgraded = NetParameter()
    upgraded.CopyFrom(net)
    del upgraded.layers[:]
    for layer in _without_padding(net):
        upgraded.layers.add().CopyFrom(_upgrade_layer(layer))
    return upgraded


def _without_padding(net: NetParameter) -> list[V1LayerParameter]:
    kept: list[V1LayerParameter] = []
    padding: dict[str, V1LayerParameter] = {}  # the newest maker of each blob, where that is a padding layer
    for original in net.layers:
        layer = V1LayerParameter()
        layer.CopyFrom(original)
        for index, blob in enumerate(original.bottom):
            source = padding.get(blob)
            if source is None:
                continue
            if original.layer.type not in ("conv", "pool") or len(original.bottom) != 1:
                raise NetError(
                    f"layer '{original.layer.name}' ({original.layer.type}) reads the padding layer '{source.layer.name}'; "
                    "only convolution and pooling with one bottom can take over its padding"
                )
            if len(source.bottom) != 1 or len(source.top) != 1:
                raise NetError(f"padding layer '{source.layer.name}' must have one bottom and one top")
            layer.layer.pad = source.layer.pad
            layer.bottom[index] = source.bottom[0]
        is_padding = original.layer.type == "padding"
        for blob in original.top:
            if is_padding:
                padding[blob] = original
            else:
                padding.pop(blob, None)
        if not is_padding:
            kept.append(layer)
    return kept


def _upgrade_layer(connection: V1LayerParameter) -> V1LayerParameter:
    if not connection.HasField("layer"):
        return connection
    old: V0LayerParameter = connection.layer
    layer = V1LayerParameter(bottom=connection.bottom, top=connection.top)
    if old.HasField("name"):
        layer.name = old.name
    if old.HasField("type"):
        if old.type not in _TYPES:
            raise NetError(
                f"layer '{old.name}': there is no V0 layer type '{old.type}' (known: {', '.join(sorted(_TYPES))})"
            )
        layer.MergeFrom(V1LayerParameter(type=_TYPES[old.type]))
    for field, value in old.ListFields():
        if field.name in _COPIED:
            getattr(layer, field.name).MergeFrom(value)
        elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
            layer.hdf5_output_param.CopyFrom(value)
        elif field.name not in ("name", "type"):
            _move(layer, old, field.name)
    return layer


def _move(layer: V1LayerParameter, old: V0LayerParameter, field_name: str) -> None:
    new_name, by_type = _DESTINATIONS.get(field_name, ("", {}))
    destination = by_type.get(old.type, by_type.get("*"))
    if destination is None:
        raise NetError(f"layer '{old.name}': a V0 layer of type '{old.type}' has no setting '{field_name}'")
    message = getattr(layer, destination)
    value = getattr(old, field_name)
    if field_name in ("weight_filler", "bias_filler"):
        getattr(message, new_name).CopyFrom(value)
    elif destination == "convolution_param" and new_name in ("pad", "kernel_size", "stride"):
        getattr(message, new_name).append(value)
    else:
        setattr(message, new_name, value)
