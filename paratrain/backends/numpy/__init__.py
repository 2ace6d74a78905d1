"""The plain reference backend: numpy and the BLAS that comes with it."""

from paratrain.backends.numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
