"""Updates of parameters in two or three passes that stay in the cache, each a chain of operations in one oneDNN kernel."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import AdamRule, MomentumRule, UpdateRule
from paratrain.backends.finite import is_finite
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import ExecuteArgument, Handle, Library
from paratrain.backends.onednn.names import Algorithm, Argument
from paratrain.backends.onednn.primitive import Engine, aligned, attributes

__all__ = ["OneDnnUpdate"]

Array = npt.NDArray[np.float32]

_INVERSE = Algorithm.ELTWISE_POWER
"""1 / x: the power -1."""
_LONGEST = 1 << 16
"""Longer ranges are cut into pieces of so many values for each thread, with which all arrays of an update stay in its core's
second cache.
"""
_MOST_LENGTHS = 256
"""Primitives have a fixed length, and are kept for so many. The ranges of a net are the same in every step, and fewer."""
_POST_OPERATION = 32768
"""The argument number of operation i in a chain is (i + 1) times this, plus that of a second source."""


@dataclass(frozen=True)
class _Chain:
    """destination = ((first OP second) OP' operand') ... + kept * destination; names are arrays or numbers of the step.

    A function of one value has the operand "". It must not come first: oneDNN has no kernel for what follows one.
    """

    operation: Algorithm
    first: str
    second: str
    then: tuple[tuple[Algorithm, str], ...]
    destination: str
    kept: float | None = None


def _chains(rule: MomentumRule | AdamRule, diffs: Sequence[str]) -> list[_Chain]:
    """The passes of an update. ``decay`` is that of the settings over the scale of gradients, so that
    (decay * data + diffs) * scale is the regularized gradient. What the first pass makes is not finite where the gradient is not.
    Both histories of Adam make the gradient anew, from values in the cache: to keep it in between takes longer.
    """
    add, multiply = Algorithm.BINARY_ADD, Algorithm.BINARY_MUL
    square, root, inverse = ((name, "") for name in (Algorithm.ELTWISE_SQUARE, Algorithm.ELTWISE_SQRT, _INVERSE))
    summed = tuple((add, name) for name in diffs)
    if isinstance(rule, MomentumRule):
        kept = rule.momentum or None
        return [
            _Chain(multiply, "data", "decay", (*summed, (multiply, "scaled_rate")), "history0", kept),
            _Chain(Algorithm.BINARY_SUB, "data", "history0", (), "data"),
        ]
    return [
        _Chain(multiply, "data", "decay", (*summed, (multiply, "mean_scale")), "history0", rule.momentum),
        _Chain(multiply, "data", "decay", (*summed, (multiply, "scale"), square, (multiply, "square_share")), "history1",
               rule.momentum2),
        _Chain(multiply, "history1", "one", (root, (add, "delta"), inverse, (multiply, "history0"),
               (multiply, "negative_rate")), "data", 1.0),
    ]  # fmt: skip


class OneDnnUpdate:
    """:class:`paratrain.backends.base.FusedUpdate` of float32 arrays. One thread at a time may use it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers: dict[str, Array] = {}
        self._built: dict[int, _Built] = {}
        self._built_for: tuple[float | None, ...] = ()
        self._rule: MomentumRule | AdamRule = MomentumRule(0.0)
        self._diffs: tuple[str, ...] = ()
        self._arrays: dict[str, Array] = {}
        self._addresses: dict[str, int] = {}

    def begin(self, rule: UpdateRule, data: Array, diffs: Sequence[Array], history: Sequence[Array]) -> None:
        """The arrays are used until the next call, and kept until others come."""
        assert isinstance(rule, MomentumRule | AdamRule)
        self._rule = rule
        given = [data, *diffs, *history]
        if len(given) != len(self._arrays) or any(
            one is not kept for one, kept in zip(given, self._arrays.values(), strict=True)
        ):
            self._diffs = tuple(f"diff{index}" for index in range(len(diffs)))
            names = ["data", *self._diffs, *(f"history{index}" for index in range(len(history)))]
            self._arrays = dict(zip(names, given, strict=True))
            self._addresses = {name: array.ctypes.data for name, array in self._arrays.items()}
        if isinstance(rule, AdamRule):
            self._set(one=1.0, square_share=1.0 - rule.momentum2, delta=rule.delta)

    def run(self, start: int, stop: int, *, rate: float, decay: float, scale: float, guarded: bool = False) -> bool:
        self._set(decay=decay / scale, scale=scale, scaled_rate=rate * scale)
        if isinstance(self._rule, AdamRule):
            mean_share = 1.0 - self._rule.momentum
            self._set(negative_rate=-rate * self._rule.correction, mean_scale=mean_share * scale)
        longest = _LONGEST * self._engine.library.thread_count
        for begin in range(start, stop, longest):
            piece = slice(begin, min(begin + longest, stop))
            goes_on = functools.partial(self._gradient_is_finite, piece) if guarded else None
            if not self._sized(piece.stop - begin).run(self._addresses, 4 * begin, goes_on):
                return False
        return True

    def _gradient_is_finite(self, piece: slice) -> bool:
        """Whether it is there, once the first pass has run. What that has made lies in the cache, and tells it nearly always."""
        if is_finite(self._arrays["history0"][piece], np):
            return True
        return is_finite(sum(self._arrays[name][piece] for name in self._diffs), np)

    def _sized(self, length: int) -> _Built:
        second = self._rule.momentum2 if isinstance(self._rule, AdamRule) else None
        built_for: tuple[float | None, ...] = (self._rule.momentum, second, len(self._diffs))
        is_full = len(self._built) >= _MOST_LENGTHS and length not in self._built
        if built_for != self._built_for or is_full:  # they are part of the kernels
            self._built, self._built_for = {}, built_for
        if length not in self._built:
            self._built[length] = _Built(self._engine, length, _chains(self._rule, self._diffs), self._numbers)
        return self._built[length]

    def _set(self, **numbers: float) -> None:
        for name, value in numbers.items():
            if name not in self._numbers:
                self._numbers[name] = aligned(4).view(np.float32)
            self._numbers[name][0] = value


class _Built:
    """The chains of an update as primitives for one length.

    ``numbers`` have one value each, and stay where they are.
    """

    def __init__(self, engine: Engine, length: int, chains: Sequence[_Chain], numbers: Mapping[str, Array]) -> None:
        library = self._library = engine.library
        self._stream = engine.stream
        piece, number = Layout.plain(library, (length,)), Layout.plain(library, (1,))
        self._memories: dict[str, Handle] = {}
        self._calls: list[tuple[Any, ...]] = []
        self._held: list[Any] = [dict(numbers)]

        def layout(name: str) -> Handle:
            return (number if name in numbers else piece).handle

        def memory(name: str) -> int:
            if name not in self._memories:
                place = numbers[name].ctypes.data if name in numbers else None
                self._memories[name] = library.new("memory", "memory_create", layout(name), engine.handle, place)
            return self._memories[name].value

        for chain in chains:
            operands = (chain.first, chain.second, *(name for _, name in chain.then if name))
            layout_of = {name: layout(name) for name in operands}
            sources = layout_of[chain.first], layout_of[chain.second]
            descriptor = library.new_primitive_descriptor(
                "binary",
                engine.handle,
                chain.operation,
                *sources,
                piece.handle,
                attributes(library, _post_operations(library, chain, layout_of)),
            )
            primitive = library.new("primitive", "primitive_create", descriptor)
            numbered = {
                int(Argument.SOURCE): chain.first,
                int(Argument.SOURCE_1): chain.second,
                int(Argument.DESTINATION): chain.destination,
            }
            for index, (_, name) in enumerate(chain.then):
                if name:
                    numbered[_POST_OPERATION * (index + 1) | Argument.SOURCE_1] = name
            passed = (ExecuteArgument * len(numbered))(
                *[ExecuteArgument(argument, memory(name)) for argument, name in numbered.items()]
            )
            self._held += [primitive, passed]
            self._calls.append((primitive.value, self._stream.value, len(numbered), ctypes.addressof(passed)))
        self._moving = [(name, handle.value) for name, handle in self._memories.items() if name not in numbers]

    def run(self, addresses: Mapping[str, int], offset: int, goes_on: Callable[[], bool] | None) -> bool:
        """Run all chains on arrays that begin so many bytes behind these addresses.

        With ``goes_on``, which is asked after the first, it ends there and returns False if the answer is no.
        """
        set_address, execute = self._library.set_address, self._library.execute
        for name, memory in self._moving:
            set_address(memory, addresses[name] + offset)
        for call in self._calls:
            status = execute(*call)
            if status:
                self._library.fail("update", status)
            if goes_on is not None:
                if not goes_on():
                    return False
                goes_on = None
        return True


def _post_operations(library: Library, chain: _Chain, layout_of: Mapping[str, Handle]) -> Handle:
    operations = library.new("post_ops", "post_ops_create")
    for operation, name in chain.then:
        if name:
            library.call("post_ops_append_binary", operations, operation, layout_of[name])
        else:
            exponent = -1.0 if operation == _INVERSE else 0.0
            library.call("post_ops_append_eltwise", operations, operation, 1.0, exponent)
    if chain.kept is not None:
        library.call("post_ops_append_sum", operations, chain.kept, 0, 0)
    return operations
