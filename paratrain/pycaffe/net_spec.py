"""Networks written in Python: ``n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5)``.

``layers`` makes layers, ``params`` has the values of enums (``P.Pooling.MAX``), and a NetSpec names what is assigned to it.
``to_proto`` gives the NetParameter, which ``str`` turns into a prototxt. Names and rules are those of pycaffe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from paratrain.errors import NetError
from paratrain.layers.base import LAYERS
from paratrain.proto import LayerParameter, NetParameter, caffe_pb2
from paratrain.proto.fork_layers import FORK_LAYERS
from paratrain.pycaffe.fields import assign, assign_proto, param_name_dict, suggestion

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "layer_function",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]

Names = dict[Any, str]
"""What tops and functions are called."""
Maker = Callable[..., Any]


class Top:
    """One blob that a layer makes: number ``n`` of the tops of ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> NetParameter:
        """Return the net of all layers that this blob needs."""
        return to_proto(self)

    def __repr__(self) -> str:
        return f"<top {self.n} of {self.fn!r}>"


class Function:
    """A layer: its type, the tops that it reads, and the fields that it is given. ``ntop`` says how many tops it makes.

    ``in_place=True`` makes it write into its bottoms. Fields of the type's own message (``convolution_param``) are given
    by their names, other messages as dictionaries (``transform_param=dict(scale=0.1)``). Raises TypeError for an input
    that is no Top, NetError for a field that the layer does not have and for a value that does not fit it.
    """

    def __init__(self, type_name: str, inputs: tuple[Any, ...], params: dict[str, Any]) -> None:
        for index, given in enumerate(inputs):
            if not isinstance(given, Top):
                raise TypeError(
                    f"{type_name}: input {index} is not a Top (it is a {type(given).__name__}): give what another layer "
                    "makes, and fields by name"
                )
        self.type_name = type_name
        self.inputs: tuple[Top, ...] = inputs
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))
        self.layer("", [], [])  # a mistake is told where it is made

    def layer(self, name: str, bottoms: list[str], tops: list[str]) -> LayerParameter:
        """Return the message, in which fields that were given win over the names."""
        layer = LayerParameter(type=self.type_name, name=name, bottom=bottoms, top=tops)
        own = param_name_dict().get(self.type_name)
        for field, value in self.params.items():
            message, where = layer, ""
            if own is not None and not field.endswith("param"):
                within = getattr(layer, f"{own}_param")
                if field in within.DESCRIPTOR.fields_by_name:
                    message, where = within, f"{own}_param."
            assign(message, field, value, f"{self.type_name}: {where}", self.type_name)
        return layer

    def to_proto(self) -> NetParameter:
        """Return the net of this layer and all that it needs."""
        return to_proto(self)

    def __repr__(self) -> str:
        return f"<{self.type_name} layer>"


def to_proto(*tops: Top | Function) -> NetParameter:
    """Return the net of all layers that are needed for ``tops``; blobs are named after their layers' types and counted."""
    return _net(list(tops), {})


def _net(wanted: list[Top | Function], names: Names) -> NetParameter:
    """The layers for what is wanted, each behind those it reads from. ``names`` has the names that are given."""
    made: dict[Function, LayerParameter] = {}
    counts: Counter[str] = Counter()

    def name_of(thing: Top | Function, type_name: str) -> str:
        if thing not in names:
            counts[type_name] += 1
            names[thing] = f"{type_name}{counts[type_name]}"
        return names[thing]

    for one in wanted:
        waiting = [one if isinstance(one, Function) else one.fn]
        while waiting:
            function = waiting[-1]
            missing = [top.fn for top in function.inputs if top.fn not in made]
            if function not in made and missing:
                waiting.append(missing[0])
                continue
            waiting.pop()
            if function in made:
                continue
            bottoms = [made[top.fn].top[top.n] for top in function.inputs]
            type_name = function.type_name
            tops = bottoms if function.in_place else [name_of(top, type_name) for top in function.tops]
            if function.in_place and function.ntop > len(bottoms):
                raise NetError(f"{type_name}: in_place makes as many tops as there are inputs, not {function.ntop}")
            name = names.get(function) or name_of(function.tops[0] if function.tops else function, type_name)
            made[function] = function.layer(name, bottoms, tops)
    return NetParameter(layer=made.values())


class NetSpec:
    """The tops of a net by name: ``n.data, n.label = L.Data(..., ntop=2)``, also written ``n["data"]``.

    ``to_proto`` has all layers that these need. A layer is called as its first top; one without tops as it is here.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", {})

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(value, (Top, Function)):
            kind = "several tops (n.a, n.b = ...)" if isinstance(value, tuple) else f"a {type(value).__name__}"
            raise TypeError(f"'{name}' is given {kind}; a NetSpec takes what one layer makes")
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tops" or name not in self.tops:
            known = [] if name == "tops" else list(self.tops)
            raise AttributeError(f"the net has no top '{name}' yet{suggestion(name, known)}")
        return self.tops[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self.tops:
            raise KeyError(f"the net has no top '{name}' yet{suggestion(name, list(self.tops))}")
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tops

    def keys(self) -> list[str]:
        """The names, in the order in which they were assigned first."""
        return list(self.tops)

    def vals(self) -> list[Top | Function]:
        """The tops in the order of ``keys``."""
        return list(self.tops.values())

    def update(self, name: str, params: Mapping[str, Any]) -> None:
        """Change fields of the layer that makes the top ``name``. Raises NetError for fields that it does not have."""
        top = self[name]
        function = top if isinstance(top, Function) else top.fn
        before = function.params
        function.params = {**before, **params}
        try:
            function.layer("", [], [])
        except NetError:
            function.params = before
            raise

    def to_proto(self) -> NetParameter:
        """Return the net of everything that is assigned, and what that needs."""
        return _net(self.vals(), {top: name for name, top in self.tops.items()})


def layer_function(type_name: str) -> Maker:
    """Return what makes layers of a type, known or not: ``layer_function("MyType")(n.data, ntop=2)``.

    Of one top it returns the Top, of several a tuple of them, and of none the Function.
    """

    def make(*inputs: Any, **fields: Any) -> Any:
        function = Function(type_name, inputs, fields)
        if function.ntop == 1:
            return function.tops[0]
        return function.tops if function.ntop else function

    make.__name__ = make.__qualname__ = type_name
    make.__doc__ = f"Describe a layer of type {type_name}: inputs first, then fields by name."
    return make


class Layers:
    """``L.Convolution(n.data, num_output=20, kernel_size=5)``: every layer type is a function of its inputs and fields.

    Types of Caffe's forks are there as well. Of others a misspelt one is likelier: ``layer_function`` takes any.
    """

    def __getattr__(self, name: str) -> Maker:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in LAYERS and name not in FORK_LAYERS:
            known = [*LAYERS.names(), *FORK_LAYERS]
            raise AttributeError(
                f"there is no layer type '{name}'{suggestion(name, known)}; for a type of your own write "
                f"net_spec.layer_function('{name}')(...)"
            )
        return layer_function(name)

    def __dir__(self) -> list[str]:
        return sorted({*LAYERS.names(), *FORK_LAYERS})


class Parameters:
    """``P.Pooling.MAX``: the values of enums, by the message that has them (PoolingParameter) without its last word."""

    def __getattr__(self, name: str) -> Any:
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            known = [one.removesuffix("Parameter") for one in dir(caffe_pb2) if one.endswith("Parameter")]
            raise AttributeError(f"there is no message {name}Parameter{suggestion(name, known)}")
        return _Values(name, message)


class _Values:
    """The values that one message has."""

    def __init__(self, name: str, message: Any) -> None:
        self._name = name
        self._values: dict[str, int] = {
            key: value for enum in message.DESCRIPTOR.enum_types for key, value in
            ((one.name, one.number) for one in enum.values)
        }  # fmt: skip

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in self._values:
            known = list(self._values)
            listed = f"; it has {', '.join(known)}" if known else "; it has none"
            raise AttributeError(f"P.{self._name} has no value '{name}'{suggestion(name, known) or listed}")
        return self._values[name]

    def __dir__(self) -> list[str]:
        return sorted(self._values)


layers = Layers()
params = Parameters()
