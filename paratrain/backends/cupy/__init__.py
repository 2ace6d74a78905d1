"""Computing on NVIDIA GPUs: arrays of CuPy, products of cuBLAS, convolutions of cuDNN, and kernels of our own."""

from __future__ import annotations

__all__: list[str] = []
