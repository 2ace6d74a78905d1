"""cupy.cuda.graph."""

from __future__ import annotations

from simulated.streams import Graph

__all__ = ["Graph"]
