"""A plugin of pytest: kernels that take any number of blocks run with three at most, so that each has several rounds to go."""

from __future__ import annotations

from typing import Any

from paratrain.backends.cupy.modules import KernelModule

_MOST = 3
_EXACT = {
    "add_parts",
    "convert_gradients",
    "convert_weights",
    "finish_moments",
    "finish_sums",
    "gradient",
    "moments",
    "normalize",
    "note_losses",
    "sum_planes",
    "sum_rows",
    "sums",
    "write_key",
}
"""Kernels that have a block for each piece of work."""


def pytest_configure() -> None:
    launch_blocks = KernelModule.launch_blocks

    def launch_few(self: KernelModule, name: str, blocks: int, *arguments: Any, **options: Any) -> None:
        plain = name.removesuffix("_wide").removesuffix("_packed")
        launch_blocks(self, name, blocks if plain in _EXACT else min(blocks, _MOST), *arguments, **options)

    KernelModule.launch_blocks = launch_few  # type: ignore[method-assign]
