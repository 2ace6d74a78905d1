"""``import caffe`` finds paratrain: for one script (``python -m paratrain.as_caffe script.py``), or wherever a user wants it.

``import caffe`` is then :mod:`paratrain.pycaffe`, and so are its submodules: ``caffe.io``, ``caffe.draw``; ``caffe.proto`` is
:mod:`paratrain.proto`. Nothing of this happens unless it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

__all__ = ["take_name"]

_NAME = "caffe"
_SAME = ("_caffe", "pycaffe")
"""Modules of pycaffe that hold what ``caffe`` itself offers."""


def take_name() -> None:
    """From now on ``import caffe`` finds paratrain in this process, whatever else may be installed."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
        del sys.modules[name]
    sys.modules[_NAME] = importlib.import_module("paratrain.pycaffe")


def _target(name: str) -> str | None:
    """The module that stands for a name of Caffe's; None for names that are not Caffe's."""
    first, _, rest = name.partition(".")
    if first != _NAME:
        return None
    if not rest or rest in _SAME:
        return "paratrain.pycaffe"
    if rest.split(".")[0] == "proto":
        return f"paratrain.{rest}"
    return f"paratrain.pycaffe.{rest}"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of Caffe's names where paratrain has them: the very same module objects."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec where paratrain has such a module; None lets Python say that there is no such module."""
        wanted = _target(fullname)
        if wanted is None or (wanted not in sys.modules and importlib.util.find_spec(wanted) is None):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname in (_NAME, f"{_NAME}.proto"))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return paratrain's module. Python will write the spec into it, and `exec_module` puts its own back."""
        wanted = _target(spec.name)
        assert wanted is not None
        module = importlib.import_module(wanted)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """The module has been run already."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
