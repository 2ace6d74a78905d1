"""The reference of the Python interface: the public names of each package, from their docstrings."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from docstrings import markdown
from google.protobuf.message import Message

__all__ = ["MODULES", "text"]

# In the order of the page. A name is described where it comes first.
MODULES = (
    "paratrain",
    "paratrain.pycaffe.net_spec",
    "paratrain.pycaffe.io",
    "paratrain.pycaffe.draw",
    "paratrain.pycaffe.coord_map",
    "paratrain.solvers",
    "paratrain.data_parallel",
    "paratrain.layers",
    "paratrain.net",
    "paratrain.blob",
    "paratrain.data",
    "paratrain.snapshot",
    "paratrain.proto",
    "paratrain.check",
    "paratrain.metrics",
    "paratrain.backends",
    "paratrain.comm",
    "paratrain.errors",
)


def text() -> str:
    """The whole reference, as Markdown with a part in reStructuredText for each name."""
    seen: set[int] = set()
    return "\n".join(_module(importlib.import_module(name), seen) for name in MODULES)


def _module(module: ModuleType, seen: set[int]) -> str:
    parts = [f"## {module.__name__}\n", markdown(module.__doc__ or ""), "```{eval-rst}"]
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, ModuleType) or id(thing) in seen or _is_message(thing):
            continue
        if not callable(thing) and not inspect.isclass(thing):
            continue
        seen.add(id(thing))
        home = f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else ""
        kind = "class" if inspect.isclass(thing) else "function"
        if inspect.isclass(thing) and issubclass(thing, Exception):
            kind = "exception"
        if not home or not inspect.getdoc(thing):
            continue
        parts.append(f".. auto{kind}:: {module.__name__}.{name}\n")
    return "\n".join([*parts, "```\n"])


def _is_message(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Message)
