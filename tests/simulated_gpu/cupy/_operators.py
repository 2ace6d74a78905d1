"""What is done with arrays: how numpy computes on their bytes, under CuPy's rules of what may meet and what a capture allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from simulated import counts, current_stream, devices, forbid_in_capture, late, record
from simulated.streams import queue_of

if TYPE_CHECKING:
    from cupy._array import ndarray

__all__ = ["Operators", "compute", "get_item", "reform", "set_item", "unwrap", "write"]

Scalar = (int, float, complex, bool, np.generic)
_SIZED_BY_VALUES = {
    *("argwhere", "bincount", "compress", "delete", "extract", "flatnonzero", "intersect1d", "nonzero", "repeat"),
    *("setdiff1d", "trim_zeros", "union1d", "unique"),
}
"""What has to see values before it can allocate its result, and so waits for the GPU."""
_IN_PLACE = {"fill_diagonal", "place", "put", "putmask"}


def arrays_in(values: Any) -> list[ndarray]:
    """The arrays among these, and among those of lists and tuples."""
    from cupy._array import ndarray

    found: list[ndarray] = []
    for value in values:
        if isinstance(value, ndarray):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += arrays_in(value)
    return found


def unwrap(value: Any) -> Any:
    """numpy's array on the same bytes; TypeError for an array of the host, which CuPy takes for nothing."""
    from cupy._array import ndarray

    if isinstance(value, ndarray):
        if not devices.reaches(devices.current(), value._memory.device_id):
            here, there = devices.current(), value._memory.device_id
            raise ValueError(
                f"Array device must be same as the current device: array device = {there} while current = {here}"
            )
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(map(unwrap, value))
    return value


def wrap(value: Any, sources: Sequence[ndarray]) -> Any:
    """An array on a GPU of numpy's result: a view where it shares the bytes of a source, else new memory."""
    from cupy._array import ndarray

    if isinstance(value, list | tuple):
        return type(value)(wrap(item, sources) for item in value)
    if isinstance(value, np.ndarray) and value.size:
        for source in sources:
            if np.may_share_memory(value, source._host):
                return source._view(value)
    if isinstance(value, np.ndarray | np.generic):
        host = np.asarray(value)
        order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
        new = ndarray(host.shape, host.dtype, order=order)
        if late.is_on():
            target = new._host
            record(lambda: np.copyto(target, host), blocks=new._blocks)
        else:
            new._host[...] = host
        return new
    return value


def _blank(value: Any, made: list[Any]) -> Any:
    """The same with zeros in place of arrays, which are added to ``made``."""
    if isinstance(value, np.ndarray):
        made.append(np.zeros_like(value))
        return made[-1]
    return type(value)(_blank(item, made) for item in value) if isinstance(value, list | tuple) else value


def _compute_late(
    function: Callable[..., Any], hosts: list[Any], named: dict[str, Any], sources: Sequence[ndarray], *, waits: bool
) -> Any:
    """What ``wrap`` gives, of a function that is called when the stream comes to it. Shapes and types of its results are what it
    gives of zeros; where there are none of their own it ``waits`` for the stream.
    """
    from cupy._array import ndarray

    probe, blanks = None, []
    if not waits:
        try:
            probe = function(*_blank(hosts, blanks), **{key: _blank(value, blanks) for key, value in named.items()})
        except (IndexError, ValueError, TypeError, ZeroDivisionError):
            waits = True
    parts = list(probe) if isinstance(probe, list | tuple) else [probe]
    are_views = [
        isinstance(part, np.ndarray) and any(np.may_share_memory(part, each) for each in blanks) for part in parts
    ]
    if all(are_views):
        return wrap(function(*hosts, **named), sources)
    if waits or any(are_views) or not all(isinstance(part, np.ndarray | np.generic) for part in parts):
        late.finish_queue(queue_of(current_stream()))
        return wrap(function(*hosts, **named), sources)
    results = []
    for part in map(np.asarray, parts):
        order = "F" if part.flags.f_contiguous and not part.flags.c_contiguous else "C"
        results.append(ndarray(part.shape, part.dtype, order=order))
    targets = [result._host for result in results]

    def run() -> None:
        value = function(*hosts, **named)
        for target, part in zip(targets, value if isinstance(value, list | tuple) else [value], strict=True):
            target[...] = part

    record(run, blocks=[block for array in (*sources, *results) for block in array._blocks])
    return type(probe)(results) if isinstance(probe, list | tuple) else results[0]


def compute(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call numpy's function on the bytes of the arrays among the arguments. Results are arrays, also where numpy has scalars.

    RuntimeError while the stream captures: the result would have to be allocated.
    """
    forbid_in_capture(f"cupy.{name}, which allocates")
    counts["function"] += 1
    sources = arrays_in([*arguments, *options.values()])
    hosts, named = unwrap(list(arguments)), {key: unwrap(value) for key, value in options.items()}

    def run(*hosts: Any, **named: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*hosts, **named)

    if not late.is_on():
        return wrap(run(*hosts, **named), sources)
    if named.get("out") is not None:
        record(lambda: run(*hosts, **named), blocks=[block for array in sources for block in array._blocks])
        return options["out"]
    return _compute_late(run, hosts, named, sources, waits=name in _SIZED_BY_VALUES | _IN_PLACE)


def copy_overlapping(arguments: Sequence[Any], out: ndarray) -> None:
    """What CuPy does with arguments that share bytes with a result, and are not the very same object: it copies them."""
    for array in arrays_in(arguments):
        if array is not out and np.may_share_memory(array._host, out._host):
            forbid_in_capture("a copy of an argument that overlaps the result")
            counts["allocate"] += 1


def write(name: str, out: ndarray, function: Callable[[], Any], sources: Sequence[ndarray]) -> ndarray:
    """Do what writes into ``out`` and allocates nothing: a captured stream notes it."""
    counts["function"] += 1

    def action() -> None:
        with np.errstate(all="ignore"):
            function()

    record(action, blocks=[block for array in (out, *sources) for block in array._blocks])
    return out


def reform(array: ndarray, name: str, function: Callable[[Any], Any]) -> ndarray:
    """Another form of the same values, a view where that can be."""
    host = function(array._host)
    if array.size == 0 or np.may_share_memory(host, array._host):
        return array._view(host)
    forbid_in_capture(f"{name} of an array that has to be copied")
    if late.is_on():
        return _compute_late(function, [array._host], {}, [array], waits=False)  # type: ignore[no-any-return]
    return wrap(host, ())  # type: ignore[no-any-return]


def _key(key: Any) -> tuple[Any, bool]:
    """numpy's index, and whether it holds arrays."""
    from cupy._array import ndarray

    parts = key if isinstance(key, tuple) else (key,)
    hosts, is_advanced = [], False
    for part in parts:
        if isinstance(part, ndarray | np.ndarray | list):
            is_advanced = True
            if not isinstance(part, ndarray):
                forbid_in_capture("an index that has to be copied to the GPU")
                counts["upload"] += 1
                part = part.copy()  # it is read at once
            elif part.dtype == bool:
                counts["synchronize"] += 1
        hosts.append(part._host if isinstance(part, ndarray) else part)
    return tuple(hosts) if isinstance(key, tuple) else hosts[0], is_advanced


def get_item(array: ndarray, key: Any) -> ndarray:
    """array[key]: a view, or with an array in the key a copy."""
    host_key, is_advanced = _key(key)
    if is_advanced:
        parts = key if isinstance(key, tuple) else (key,)
        name = "compress" if any(getattr(getattr(part, "dtype", None), "kind", "") == "b" for part in parts) else "take"
        return compute(name, lambda host: host[host_key], array)  # type: ignore[no-any-return]
    host = array._host[host_key]
    if isinstance(host, np.ndarray):
        return array._view(host)
    return array._view(array._host[(*host_key, ...) if isinstance(host_key, tuple) else (host_key, ...)])


def set_item(array: ndarray, key: Any, value: Any) -> None:
    """array[key] = value."""
    from cupy._array import ndarray

    if isinstance(value, np.ndarray) and value.shape != ():
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    host_key, is_advanced = _key(key)
    if isinstance(value, list | tuple):
        forbid_in_capture("values that have to be copied to the GPU")
    if is_advanced:
        parts = host_key if isinstance(host_key, tuple) else (host_key,)
        if (
            isinstance(value, ndarray)
            and value.size > 1
            and any(isinstance(part, np.ndarray) and part.dtype == np.bool_ for part in parts)
        ):
            forbid_in_capture("an assignment through a mask")
    source = unwrap(value)
    host = array._host
    unwrap(array)
    if isinstance(value, ndarray) and not is_advanced:
        _check_overlap(get_item(array, key), value)
    write("copy", array, lambda: host.__setitem__(host_key, source), arrays_in([value]))


def _check_overlap(target: ndarray, value: ndarray) -> None:
    """CuPy copies a run of bytes by cudaMemcpyAsync, whose source and target must not overlap."""
    here, there = target._host, value._host
    if here.__array_interface__["data"] == there.__array_interface__["data"] or not np.may_share_memory(here, there):
        return
    if here.dtype == there.dtype and here.strides == there.strides and here.flags.c_contiguous:
        raise RuntimeError("a copy of bytes to where some of them lie: what comes out is not defined")
    copy_overlapping([value], target)


class Operators:
    """Arithmetic: by the ufuncs of the module."""

    __slots__ = ()


def _binary(name: str) -> tuple[Any, Any, Any]:
    def check(other: Any) -> bool:
        from cupy._array import ndarray

        if isinstance(other, np.ndarray):
            raise TypeError(f"Unsupported type {type(other)}")
        return isinstance(other, (ndarray, *Scalar))

    def forward(self: Any, other: Any) -> Any:
        import cupy

        return getattr(cupy, name)(self, other) if check(other) else NotImplemented

    def reflected(self: Any, other: Any) -> Any:
        import cupy

        return getattr(cupy, name)(other, self) if check(other) else NotImplemented

    def in_place(self: Any, other: Any) -> Any:
        import cupy

        return getattr(cupy, name)(self, other, out=self) if check(other) else NotImplemented

    return forward, reflected, in_place


for _method, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "matmul": "matmul",
}.items():
    for _prefix, _function in zip(("", "r", "i"), _binary(_name), strict=True):
        if (_prefix, _method) != ("i", "matmul"):
            setattr(Operators, f"__{_prefix}{_method}__", _function)
for _method, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(Operators, f"__{_method}__", _binary(_name)[0])


def _unary(name: str) -> Any:
    def method(self: Any) -> Any:
        import cupy

        return getattr(cupy, name)(self)

    return method


for _method, _name in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
    setattr(Operators, f"__{_method}__", _unary(_name))


def _function_method(name: str) -> Any:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        import cupy

        return getattr(cupy, name)(self, *arguments, **options)

    return method


for _name in (
    *(
        "all",
        "any",
        "argmax",
        "argmin",
        "argpartition",
        "argsort",
        "clip",
        "compress",
        "conj",
        "cumprod",
        "cumsum",
        "dot",
    ),
    *("max", "mean", "min", "nonzero", "prod", "ptp", "put", "repeat", "round", "searchsorted", "std", "sum", "take"),
    *("trace", "var"),
):
    setattr(Operators, _name, _function_method(_name))
