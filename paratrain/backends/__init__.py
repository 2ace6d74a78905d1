"""Backends: who does the arithmetic. ``numpy`` is the plain reference that others are checked against."""

import paratrain.backends.cupy.backend
import paratrain.backends.numpy
import paratrain.backends.onednn  # noqa: F401  (they register themselves)
from paratrain.backends.base import (
    BACKEND_VARIABLE,
    BACKENDS,
    DEFAULT_BACKEND,
    PRECISION_VARIABLE,
    PRECISIONS,
    Backend,
    create_backend,
)

__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "DEFAULT_BACKEND",
    "PRECISIONS",
    "PRECISION_VARIABLE",
    "Backend",
    "create_backend",
]
