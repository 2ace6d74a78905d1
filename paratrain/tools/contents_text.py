"""Contents as text, and as values for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paratrain.tools.contents import Contents

__all__ = ["contents_values", "format_contents", "label_name"]

_BAR_WIDTH = 40
_SHOWN_CLASSES = 24
_SHOWN_SHAPES = 8
_SHOWN_DAMAGED = 10


def format_contents(found: Contents, class_names: Sequence[str] = ()) -> list[str]:
    """Lines for people: what it is, shapes, how records are stored, a histogram of the labels, and what is damaged."""
    unit = "rows" if found.datasets else "records"
    lines = [f"{found.path}: {found.kind}, {found.count:,} {unit}, {found.size_bytes:,} bytes"]
    if not found.datasets:
        is_all = found.read_count == found.count
        how = "all were read" if is_all else f"{found.read_count:,}, evenly spread, were read; --check reads all"
        lines.append(f"read: {how}")
    if found.keys is not None:
        lines.append(f"keys: {found.keys[0]} to {found.keys[1]}")
    if found.datasets:
        width = max(len(name) for name, _, _ in found.datasets)
        lines.append("datasets:")
        lines += [f"  {name:<{width}}  {shape}  {dtype}" for name, shape, dtype in found.datasets]
    if found.shapes:
        lines.append("shapes (C, H, W):")
        lines += _table({str(shape): count for shape, count in found.shapes.most_common()}, _SHOWN_SHAPES)
    if found.stored_as:
        lines.append("stored as:")
        lines += _table(dict(found.stored_as.most_common()), _SHOWN_SHAPES)
    lines += _histogram(found.labels, class_names)
    if found.damaged:
        lines.append(f"damaged: {len(found.damaged):,} of {max(found.read_count, len(found.damaged)):,}")
        lines += [f"  {key}: {reason}" for key, reason in found.damaged[:_SHOWN_DAMAGED]]
        if len(found.damaged) > _SHOWN_DAMAGED:
            lines.append(f"  ... and {len(found.damaged) - _SHOWN_DAMAGED:,} more")
    else:
        lines.append("damaged: none" if found.read_count == found.count else "damaged: none of those that were read")
    return lines


def _table(counts: Mapping[str, int], shown: int) -> Iterator[str]:
    """A line for each of the first names, and one for the others together."""
    items = list(counts.items())
    width = max(len(name) for name, _ in items[:shown])
    for name, count in items[:shown]:
        yield f"  {name:<{width}}  {count:,}"
    if len(items) > shown:
        yield f"  ... and {len(items) - shown:,} more, {sum(count for _, count in items[shown:]):,} in all"


def _histogram(labels: Counter[int], class_names: Sequence[str]) -> Iterator[str]:
    """A bar for each label in order; of many labels, those with the most and with the fewest records."""
    if not labels:
        return
    fewest, most = min(labels.values()), max(labels.values())
    yield f"labels: {len(labels):,}, from {min(labels)} to {max(labels)}, with {fewest:,} to {most:,} each"
    shown: list[int | None] = [*sorted(labels)]
    if len(labels) > _SHOWN_CLASSES:
        ranked = [label for label, _ in sorted(labels.items(), key=lambda item: (-item[1], item[0]))]
        half = _SHOWN_CLASSES // 2
        shown = [*ranked[:half], None, *ranked[-half:]]
    names = {label: label_name(label, class_names) for label in shown if label is not None}
    name_width, count_width = max(map(len, names.values())), len(f"{most:,}")
    for label in shown:
        if label is None:
            yield f"  ... {len(labels) - _SHOWN_CLASSES:,} labels between"
            continue
        bar = "#" * max(1, round(_BAR_WIDTH * labels[label] / most))
        yield f"  {names[label]:<{name_width}}  {labels[label]:>{count_width},}  {bar}"


def label_name(label: int, class_names: Sequence[str], *, number: bool = True) -> str:
    """The name of a class, after its ``number``; only the number where there is no name."""
    if not 0 <= label < len(class_names):
        return str(label)
    return f"{label} {class_names[label]}" if number else class_names[label]


def contents_values(found: Contents) -> dict[str, Any]:
    """The same for programs (schema 1); nothing is left out."""
    return {
        "schema": 1,
        "path": found.path,
        "kind": found.kind,
        "bytes": found.size_bytes,
        "count": found.count,
        "read_count": found.read_count,
        "keys": None if found.keys is None else {"first": found.keys[0], "last": found.keys[1]},
        "shapes": [{"shape": list(shape), "count": count} for shape, count in found.shapes.most_common()],
        "stored_as": dict(found.stored_as),
        "datasets": [{"name": name, "shape": list(shape), "dtype": dtype} for name, shape, dtype in found.datasets],
        "labels": {str(label): found.labels[label] for label in sorted(found.labels)},
        "damaged": [{"key": key, "reason": reason} for key, reason in found.damaged],
    }
