"""The types of oneDNN's functions that are used here, as its header ``oneapi/dnnl/dnnl.h`` (3.x) declares them."""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from typing import Any

__all__ = ["CALLS", "CONSTRUCTORS", "PRIMITIVES", "TYPES", "Dimensions"]

Dimensions = c_int64 * 12
TYPES: dict[str, Any] = {"h": c_void_p, "i": c_int, "u": c_uint, "l": c_int64, "z": c_size_t, "f": c_float, "d": Dimensions,
                          "p": c_void_p}  # fmt: skip
"""Letters for the types of parameters: h a handle, d sizes along axes, p a pointer, the others numbers of C."""

# What follows the handle that each of these writes first, save for primitive descriptors the attributes that come last.
CONSTRUCTORS = {
    "engine_create": "iz",
    "stream_create": "hu",
    "memory_desc_create_with_tag": "idii",
    "memory_desc_create_with_strides": "idid",
    "memory_desc_create_submemory": "hdd",
    "memory_desc_clone": "h",
    "memory_create": "hhp",
    "primitive_attr_create": "",
    "post_ops_create": "",
    "primitive_create": "h",
}
PRIMITIVES = {
    "reorder": "hhhh",
    "convolution_forward": "hiihhhhdddd",
    "convolution_backward_data": "hihhhddddh",
    "convolution_backward_weights": "hihhhhddddh",
    "deconvolution_forward": "hiihhhhdddd",
    "deconvolution_backward_data": "hihhhddddh",
    "deconvolution_backward_weights": "hihhhhddddh",
    "pooling_forward": "hiihhddddd",
    "pooling_backward": "hihhdddddh",
    "lrn_forward": "hiihhlfff",
    "lrn_backward": "hihhhlfffh",
    "eltwise_forward": "hiihhff",
    "eltwise_backward": "hihhhffh",
    "batch_normalization_forward": "hihhfu",
    "batch_normalization_backward": "hihhhfuh",
    "softmax_forward": "hiihhi",
    "softmax_backward": "hihhhih",
    "inner_product_forward": "hihhhh",
    "inner_product_backward_data": "hhhhh",
    "inner_product_backward_weights": "hhhhhh",
    "matmul": "hhhhh",
    "binary": "hihhh",
    "sum": "hhipp",
    "concat": "hhiip",
}
CALLS = {
    "memory_desc_query": "hip",
    "memory_set_data_handle": "hp",
    "primitive_attr_set_scratchpad_mode": "hi",
    "primitive_attr_set_post_ops": "hh",
    "post_ops_append_eltwise": "hiff",
    "post_ops_append_sum": "hfii",
    "post_ops_append_binary": "hih",
    "primitive_desc_query": "hiip",
    "primitive_desc_next_impl": "h",
    "primitive_execute": "hhip",
}
