"""How often what happened, for tests that count."""

from __future__ import annotations

from collections import Counter

__all__ = ["counts"]

counts: Counter[str] = Counter()
"""By name: malloc (cudaMalloc), allocate (from a pool), launch (kernels), graph_launch, synchronize, download, upload, function
(CuPy's functions of arrays)."""
