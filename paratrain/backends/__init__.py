"""Backends: who does the arithmetic. ``numpy`` is the plain reference that others are checked against."""

import paratrain.backends.numpy  # noqa: F401  (registers itself)
from paratrain.backends.base import BACKENDS, Backend, create_backend

__all__ = ["BACKENDS", "Backend", "create_backend"]
