"""Blocks to plain arrays by numpy, against oneDNN's reorder."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.onednn import library
from tests.optional import need_onednn


@pytest.fixture(autouse=True)
def _onednn() -> None:
    need_onednn()


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("rows", [32, 48])
def test_gathers_what_a_reorder_does(rows: int, accumulate: bool) -> None:
    from paratrain.backends.onednn.gather import Gather
    from paratrain.backends.onednn.layout import Layout
    from paratrain.backends.onednn.names import Argument
    from paratrain.backends.onednn.primitive import Descriptor, Primitive, aligned

    backend = create_backend("onednn")
    engine = backend.engine  # type: ignore[attr-defined]
    shape = (rows, 1024, 1, 1)
    bottom, top = Layout.any(engine.library, (2, 1024, 4, 4)), Layout.any(engine.library, (2, rows, 4, 4))
    sizes = ((1, 1), (0, 0), (0, 0), (0, 0))
    weights = Layout.any(engine.library, shape)
    forward = Descriptor(engine, "convolution_forward", 64, 1, bottom, weights, None, top, *sizes)
    blocks, plain = forward.layout(Argument.WEIGHTS), Layout.plain(engine.library, shape)
    assert Gather.suits(blocks, plain) and not Gather.suits(plain, blocks), blocks
    values = aligned(blocks.size_bytes)
    values.view(np.float32)[:] = np.random.default_rng(1).normal(size=values.size // 4)
    by_numpy, by_reorder = (aligned(plain.size_bytes).view(np.float32) for _ in range(2))
    by_numpy[:] = by_reorder[:] = np.arange(by_numpy.size)
    Gather(blocks, plain, accumulate).run(values, by_numpy)
    descriptor = Descriptor(engine, "reorder", blocks, engine.handle, plain, engine.handle, accumulate=accumulate)
    Primitive(descriptor, Argument.SOURCE, Argument.DESTINATION).run(values, by_reorder)
    assert np.array_equal(by_numpy, by_reorder)


def test_layouts_of_the_same_order() -> None:
    from paratrain.backends.onednn.layout import Layout

    found = library.load()
    for shape, width in (((64, 32, 7, 7), 16), ((2, 32, 4, 3), 8)):
        blocked, last = Layout.blocked(found, shape, width), Layout.channels_last(found, shape)
        assert blocked is not None and blocked.channel_block == width and not blocked.is_channels_last
        assert last.channel_block == 0 and last.is_channels_last and not last.is_plain
        other = (3, 5, 2, 2)
        assert blocked.like(other) == Layout.blocked(found, other, width) and last.like(other) == Layout.channels_last(
            found, other
        )
        assert Layout.plain(found, shape).like(other) == Layout.plain(found, other)
        assert not blocked.is_padded and Layout.blocked(found, other, width).is_padded  # type: ignore[union-attr]
    assert Layout.blocked(found, (4, 16), 16) is None
    assert Layout.strided(found, (2, 3, 4, 5), (60, 1, 3, 12)).like(other) is None
