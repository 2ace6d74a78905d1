"""The numbers by which oneDNN's C interface (3.x) names things; the values are those of ``oneapi/dnnl/dnnl_types.h``."""

from __future__ import annotations

import enum

__all__ = ["Algorithm", "Argument", "DataType", "NormalizationFlags", "PropKind", "Query"]


class DataType(enum.IntEnum):
    """What one value is."""

    BF16 = 2
    F32 = 3
    S32 = 4
    S8 = 5
    U8 = 6

    @property
    def item_bytes(self) -> int:
        """The bytes that a value takes."""
        return {DataType.BF16: 2, DataType.F32: 4, DataType.S32: 4}.get(self, 1)


class PropKind(enum.IntEnum):
    """Which pass a primitive computes."""

    FORWARD_TRAINING = 64
    FORWARD_INFERENCE = 96
    BACKWARD = 128
    BACKWARD_DATA = 160


class Algorithm(enum.IntEnum):
    """What a primitive computes, where its kind leaves a choice."""

    CONVOLUTION_DIRECT = 0x1
    DECONVOLUTION_DIRECT = 0xA
    ELTWISE_RELU = 0x20
    ELTWISE_TANH = 0x21
    ELTWISE_SQUARE = 0x23
    ELTWISE_SQRT = 0x25
    ELTWISE_LOGISTIC = 0x29
    ELTWISE_POWER = 0x30
    ELTWISE_RELU_BY_TOP = 0x100
    """ReLU whose backward looks at the top instead of the bottom."""
    ELTWISE_TANH_BY_TOP = 0x101
    ELTWISE_LOGISTIC_BY_TOP = 0x104
    POOLING_MAX = 0x1FF
    POOLING_AVERAGE_WITH_PADDING = 0x2FF
    POOLING_AVERAGE_WITHOUT_PADDING = 0x3FF
    LRN_ACROSS_CHANNELS = 0xAFF
    LRN_WITHIN_CHANNEL = 0xBFF
    BINARY_ADD = 0x1FFF0
    BINARY_MUL = 0x1FFF1
    BINARY_MAX = 0x1FFF2
    BINARY_DIV = 0x1FFF4
    BINARY_SUB = 0x1FFF5
    SOFTMAX = 0x30000


class Argument(enum.IntEnum):
    """The arrays that a primitive reads and writes. "Source" and "destination" are Caffe's bottom and top."""

    SOURCE = 1
    SOURCE_1 = 2
    DESTINATION = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    """What forward leaves for backward, such as the places of maxima."""
    SCRATCHPAD = 80
    SOURCE_DIFF = 129
    DESTINATION_DIFF = 145
    WEIGHTS_DIFF = 161
    BIAS_DIFF = 169
    SCALE_DIFF = 255
    SHIFT_DIFF = 256
    SOURCES = 1024
    """The first of many sources; the others follow."""


class NormalizationFlags(enum.IntFlag):
    """What a batch normalization takes and does beside normalizing."""

    USE_GIVEN_STATISTICS = 1
    USE_SCALE = 2
    USE_SHIFT = 4
    FUSE_RELU = 8


class Query(enum.IntEnum):
    """What can be asked of a descriptor."""

    IMPLEMENTATION = 8
    STRIDES = 14
    ARGUMENT_LAYOUT = 255
    AXIS_COUNT = 256
    SHAPE = 257
    DATA_TYPE = 258
    PADDED_SHAPE = 260
    BLOCK_COUNT = 263
    BLOCK_SIZES = 264
    BLOCK_AXES = 265
