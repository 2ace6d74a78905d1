"""One HTML page of a run, which needs nothing beside itself: curves, speed, ranks, tree, layers, warnings, settings."""

from paratrain.tools.report.page import make_page

__all__ = ["make_page"]
