"""Backends: who does the arithmetic. ``numpy`` is the plain reference that others are checked against."""

import paratrain.backends.numpy
import paratrain.backends.onednn  # noqa: F401  (both register themselves)
from paratrain.backends.base import BACKEND_VARIABLE, BACKENDS, DEFAULT_BACKEND, Backend, create_backend

__all__ = ["BACKENDS", "BACKEND_VARIABLE", "DEFAULT_BACKEND", "Backend", "create_backend"]
