"""Where the catalogue's data files lie."""

from __future__ import annotations

from pathlib import Path

from paratrain.errors import TopologyError

INSTALLED = Path(__file__).resolve().parent / "catalogue"  # package data, in a wheel
CHECKOUT = Path(__file__).resolve().parents[2] / "topology"  # a bare checkout or an editable install


def catalogue_folder() -> Path:
    """The folder of the catalogue. TopologyError if the installation lacks it."""
    for folder in (INSTALLED, CHECKOUT):
        if (folder / "links.json").is_file():
            return folder
    raise TopologyError(
        f"the machine catalogue is missing: expected links.json in {INSTALLED} or {CHECKOUT}; install paratrain again"
    )
