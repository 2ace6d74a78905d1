"""The enumerations of the front end."""

from __future__ import annotations

import enum

import ml_dtypes
import numpy as np

__all__ = ["behavior_note", "build_plan_policy", "data_type", "heur_mode", "numerical_note", "numpy_type"]

data_type = enum.Enum(
    "data_type",
    "FLOAT DOUBLE HALF INT8 INT32 INT8x4 UINT8 UINT8x4 INT8x32 BFLOAT16 INT64 BOOLEAN FP8_E4M3 FP8_E5M2 FAST_FLOAT_FOR_FP8 "
    "FP8_E8M0 FP4_E2M1 INT4 NOT_SET",
)
heur_mode = enum.Enum("heur_mode", "A B FALLBACK OPENSOURCE")
build_plan_policy = enum.Enum("build_plan_policy", "HEURISTICS_CHOICE ALL")
numerical_note = enum.Enum(
    "numerical_note",
    "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD WINOGRAD_TILE_4x4 "
    "WINOGRAD_TILE_6x6 WINOGRAD_TILE_13x13 STRICT_NAN_PROP",
)
behavior_note = enum.Enum(
    "behavior_note",
    "RUNTIME_COMPILATION REQUIRES_FILTER_INT8x32_REORDER REQUIRES_BIAS_INT8x32_REORDER SUPPORTS_CUDA_GRAPH_NATIVE_API "
    "CUBLASLT_DEPENDENCY",
)


def numpy_type(kind: data_type) -> np.dtype:
    return np.dtype(
        {
            data_type.FLOAT: np.float32,
            data_type.DOUBLE: np.float64,
            data_type.HALF: np.float16,
            data_type.BFLOAT16: ml_dtypes.bfloat16,
        }[kind]
    )
