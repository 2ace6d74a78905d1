"""Convolutions by cuDNN, through NVIDIA's front end for Python."""

from __future__ import annotations

__all__: list[str] = []
