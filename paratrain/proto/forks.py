"""Which fork of Caffe a field belongs to.

The schema reads the fields of many forks under their names (see ``proto/caffe.proto``). Their numbers are ours and say whose they
are. Some more fields are known by name only: files that use them cannot be read, but the error can say where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from paratrain.proto.schema import all_messages, is_repeated, message_name

__all__ = ["UNREAD_FIELDS", "fork_fields", "fork_of", "fork_of_unread"]

_SSD = "SSD (weiliu89/caffe, also in NVIDIA/caffe and intel/caffe)"
_NVCAFFE = "NVIDIA/caffe"

# The last hundred of a field's number, from 10000 on.
_FORK_OF_HUNDRED = {
    0: _SSD,
    1: _NVCAFFE,
    2: "intel/caffe",
    3: "yjxiong/caffe",
    4: "SegNet, DeepLab and other smaller forks",
    9: "paratrain",
}

# Fields in the range of BVLC's numbers, where those of the forks do not clash.
_KEPT_NUMBERS = {
    ("BlobProto", "raw_data_type"): _NVCAFFE,
    ("BlobProto", "raw_diff_type"): _NVCAFFE,
    ("BlobProto", "raw_data"): _NVCAFFE,
    ("BlobProto", "raw_diff"): _NVCAFFE,
    ("SolverState", "minimum_loss"): _SSD,
    ("SolverState", "iter_last_event"): _SSD,
}

# Fields of LayerParameter that the schema does not have.
UNREAD_FIELDS = {
    "adaptive_bias_channel_param": "DeepLab",
    "augmentation_param": "FlowNet (lmb-freiburg)",
    "correlation_param": "FlowNet (lmb-freiburg)",
    "cpm_transform_param": "OpenPose's training fork (CPM)",
    "data_augmentation_param": "FlowNet (lmb-freiburg)",
    "dense_crf_param": "DeepLab",
    "flow_warp_param": "FlowNet 2 (lmb-freiburg)",
    "l1_loss_param": "FlowNet (lmb-freiburg)",
    "margin_inner_product_param": "SphereFace",
    "mat_read_param": "DeepLab",
    "mat_write_param": "DeepLab",
    "mish_param": "conversions of YOLO v4",
    "multi_stage_meanfield_param": "CRF-RNN",
    "resample_param": "FlowNet 2 (lmb-freiburg)",
    "roi_align_param": "ports of Mask R-CNN",
    "seg_accuracy_param": "DeepLab",
    "st_param": "forks with spatial transformers",
    "triplet_loss_param": "forks for face recognition",
    "unique_label_param": "DeepLab",
}


def fork_of(field: FieldDescriptor) -> str | None:
    """The fork that a field comes from; None if it is BVLC Caffe's."""
    kept = _KEPT_NUMBERS.get((message_name(field), field.name))
    if kept is not None:
        return kept
    if field.number >= 10000:
        return _FORK_OF_HUNDRED[field.number % 10000 // 100]
    return _fork_of_message(message_name(field))


def fork_of_unread(field_name: str) -> str | None:
    """The fork that has a field of this name, where the schema has none."""
    return UNREAD_FIELDS.get(field_name)


def fork_fields(message: Message, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, fork) for every field set in ``message`` that is not BVLC Caffe's: ("layer[2].permute_param", "SSD ...")."""
    for field, value in message.ListFields():
        fork = fork_of(field)
        place = f"{path}.{field.name}" if path else field.name
        if fork is not None:
            yield place, fork
        elif field.message_type is not None:
            if is_repeated(field):
                for index, item in enumerate(value):
                    yield from fork_fields(item, f"{place}[{index}]")
            else:
                yield from fork_fields(value, place)


def _fork_of_message(name: str) -> str | None:
    """The fork whose field has messages of this type, if no field of BVLC's has."""
    if name in _files_of_bvlc():
        return None
    for user in all_messages():
        for field in user.fields:
            if field.message_type is not None and field.message_type.name == name:
                return fork_of(field)
    return _SSD if name in ("LabelMap", "AnnotatedDatum") else None


@cache
def _files_of_bvlc() -> set[str]:
    """The message types that can be reached from what BVLC Caffe stores in files, through its own fields."""
    found = {"NetParameter", "SolverParameter", "SolverState", "BlobProtoVector", "Datum"}
    by_name = {message.name: message for message in all_messages()}
    waiting = sorted(found)
    while waiting:
        message = by_name[waiting.pop()]
        for field in message.fields:
            target = field.message_type
            if target is not None and field.number < 10000 and target.name not in found:
                found.add(target.name)
                waiting.append(target.name)
    return found
