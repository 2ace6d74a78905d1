"""The names of a net's parts, as pycaffe has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from paratrain.registry import nearest

if TYPE_CHECKING:
    from paratrain.blob import Blob
    from paratrain.layers.base import Layer

__all__ = ["NameInterface", "Named", "did_you_mean"]

Value = TypeVar("Value")


class Named(OrderedDict[str, Value]):
    """Parts of a net by name, in its order. A name that is not there is a KeyError, which names the nearest; ``what`` is
    what they are called in it.
    """

    def __init__(self, items: Iterable[tuple[str, Value]] = (), what: str = "part") -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(f"the net has no {self._what} '{name}'{did_you_mean(str(name), self)}")


class NameInterface:
    """What scripts written for pycaffe ask a net about its layers and blobs; mixed into Net."""

    if TYPE_CHECKING:
        layers: list[Layer]
        layer_names: list[str]

        @property
        def output_names(self) -> list[str]: ...
        @property
        def input_names(self) -> list[str]: ...
        @property
        def top_names(self) -> OrderedDict[str, list[str]]: ...
        @property
        def bottom_names(self) -> OrderedDict[str, list[str]]: ...
        @property
        def blobs(self) -> OrderedDict[str, Blob]: ...
        def loss_weight(self, blob_name: str) -> float: ...

    @property
    def inputs(self) -> list[str]:
        """The names of the blobs that Input layers make."""
        return self.input_names

    @property
    def outputs(self) -> list[str]:
        """The names of the blobs that no layer reads."""
        return self.output_names

    @property
    def layer_dict(self) -> OrderedDict[str, Layer]:
        """The layers by name."""
        return Named(zip(self.layer_names, self.layers, strict=True), "layer")

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """The weight of each blob in the loss, by name; 0 for most."""
        return Named(((name, self.loss_weight(name)) for name in self.blobs), "blob")

    # What follows are pycaffe's own names for what it is made of, which scripts use as well.

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.input_names]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.output_names]

    def _bottom_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.bottom_names[self.layer_names[layer]]]

    def _top_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.top_names[self.layer_names[layer]]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest names, or else all of them."""
    names = list(known)
    close = nearest(name, names)
    if close:
        return f"; did you mean {' or '.join(repr(match) for match in close)}?"
    return f"; it has {', '.join(names) or 'none'}"
