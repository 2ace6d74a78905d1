"""Python: layers that users write as classes in modules of their own, as for pycaffe."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paratrain.blob import Blob, BlobVector
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.proto import LayerParameter

__all__ = ["PythonLayer", "UserLayer"]

_METHODS = ("setup", "reshape", "forward", "backward")
_CAFFE_HINT = (
    "; write 'import paratrain as caffe', or let 'import caffe' find paratrain: python -m paratrain.as_caffe --install"
)


class UserLayer:
    """The base of layers that a prototxt names by ``python_param``: ``paratrain.Layer``, pycaffe's ``caffe.Layer``.

    Subclasses define ``setup`` (read ``param_str``, add ``blobs``), ``reshape`` (shape the tops), ``forward`` (write
    ``top[i].data``) and ``backward`` (write ``bottom[i].diff`` where ``propagate_down[i]`` holds, add to
    ``blobs[i].diff``). Blobs have ``data`` and ``diff``, numpy arrays on the host, ``shape``, ``count`` and ``reshape``.
    """

    param_str: str
    """What the prototxt hands over: any text."""
    phase: int
    """``paratrain.TRAIN`` or ``paratrain.TEST``."""
    blobs: BlobVector
    """The learnable blobs, made in ``setup`` by ``self.blobs.add_blob(2, 3)``."""
    carried_blobs: BlobVector
    """What a forward pass takes over from the one before, made by ``self.carried_blobs.add_blob(2, 3)``: snapshots keep it."""
    name: str
    rank: int
    """Which of the ranks that share the records this is: a layer that reads data takes record rank, rank + size ..."""
    size: int

    def __init__(self, parameter: LayerParameter) -> None:
        self.parameter = parameter

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Called once, before ``reshape``; a layer that needs nothing leaves it out."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops: ``top[0].reshape(...)``."""
        raise NotImplementedError("the class has no method reshape(self, bottom, top)")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write the data of the tops."""
        raise NotImplementedError("the class has no method forward(self, bottom, top)")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Write the diffs of the bottoms."""
        raise NotImplementedError("the class has no method backward(self, top, propagate_down, bottom)")


@register_layer("Python")
class PythonLayer(Layer):
    """Runs the class ``layer`` of ``module``, which is found on sys.path or in the current folder (see UserLayer).

    Any number of bottoms and tops. Give ``loss_weight`` for a loss. ``share_in_parallel`` changes nothing: every rank is a
    process with a layer of its own. Attributes that this class lacks are the user object's.

    Raises LayerError where the net may not run code (``LayerContext.allow_python``), where the class cannot be found or
    made, and for every exception in the user's code: the message has its traceback.
    """

    bottom_range = (0, None)
    top_range = (0, None)
    keeps_blobs = True
    writes_frozen_blobs = True

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """No: nobody knows what the user's code remembers."""
        return False

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        python = parameter.python_param
        if not python.module or not python.layer:
            raise self.error("python_param must have a module and a layer, the name of a class in it")
        if not context.allow_python:
            raise self.error(
                f"runs code that the file names, class '{python.layer}' of module '{python.module}'; if you trust it, "
                "give --allow-python"
            )
        blobs = BlobVector(dtype=context.dtype)
        self.blobs, self._carried_blobs = blobs, BlobVector(dtype=context.dtype)
        self.user_layer = self._create()
        attributes = {"param_str": python.param_str, "param_str_": python.param_str, "phase": int(context.phase)}
        attributes |= {
            "blobs": blobs,
            "carried_blobs": self._carried_blobs,
            "name": parameter.name,
            "rank": context.rank,
            "size": context.size,
        }
        for attribute, value in attributes.items():
            setattr(self.user_layer, attribute, value)

    def __getattr__(self, name: str) -> Any:
        if name == "user_layer":  # not made yet
            raise AttributeError(name)
        return getattr(self.user_layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What nets do not know of is an attribute of the user's layer: ``net.layers[0].threshold = 3``."""
        if "user_layer" in self.__dict__ and name not in self.__dict__ and not hasattr(type(self), name):
            setattr(self.user_layer, name, value)
        else:
            super().__setattr__(name, value)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        with self._user_code("setup"):
            self.user_layer.setup(bottom, top)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        with self._user_code("reshape"):
            self.user_layer.reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        with self._user_code("forward"):
            self.user_layer.forward(bottom, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        with self._user_code("backward"):
            self.user_layer.backward(top, propagate_down, bottom)

    def carried_blobs(self) -> Sequence[Blob]:
        """Those that the user's layer has made."""
        return self._carried_blobs

    def _create(self) -> Any:
        python, module = self.parameter.python_param, self._import()
        kind = getattr(module, python.layer, None)
        if not isinstance(kind, type):
            raise self.error(f"module '{python.module}' ({module.__file__}) has no class '{python.layer}'")
        missing = [name for name in _METHODS if not callable(getattr(kind, name, None))]
        if missing:
            raise self.error(
                f"class '{python.layer}' of module '{python.module}' lacks the methods {', '.join(missing)}"
            )
        with self._user_code("__init__"):
            return kind(self.parameter) if issubclass(kind, UserLayer) else kind()

    def _import(self) -> Any:
        name, here = self.parameter.python_param.module, str(Path.cwd())
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)  # last, so that a file here does not take the place of an installed module
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except Exception as error:
            lacking = str(error.name) if isinstance(error, ModuleNotFoundError) else ""
            if lacking and f"{name}.".startswith(f"{lacking}."):
                raise self.error(
                    f"no module '{name}' (python_param.module) in {here} or on sys.path; set PYTHONPATH to its folder"
                ) from None
            hint = _CAFFE_HINT if lacking.split(".")[0] == "caffe" else ""
            raise self.error(f"importing '{name}' failed{hint}: {_trace(error)}") from error

    @contextlib.contextmanager
    def _user_code(self, method: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            python = self.parameter.python_param
            raise self.error(f"{python.module}.{python.layer}.{method} failed: {_trace(error)}") from error


def _trace(error: Exception) -> str:
    """The error in a line, then the traceback from the user's code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__)).rstrip()
    return f"{type(error).__name__}: {error}\n{lines}"
