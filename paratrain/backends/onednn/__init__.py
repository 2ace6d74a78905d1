"""The CPU backend on oneDNN: kernels made for the processor at hand, called through the library's C interface."""

from paratrain.backends.onednn.backend import OneDnnBackend

__all__ = ["OneDnnBackend"]
