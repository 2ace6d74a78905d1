"""Files that a network names and that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paratrain.proto import LayerParameter

__all__ = ["missing_files"]

# The message that names the file a layer reads, by type.
_SOURCES = {
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "InfogainLoss": "infogain_loss_param",
    "WindowData": "window_data_param",
}


def missing_files(layer: LayerParameter) -> Iterator[str]:
    """Yield a sentence for each file or folder that ``layer`` would read or write in and that does not exist."""
    message = _SOURCES.get(layer.type)
    if message is not None:
        source = getattr(layer, message).source
        if source and not Path(source).exists():
            yield _sentence(layer, f"{message}.source", source)
        elif source and layer.type == "HDF5Data" and Path(source).is_file():
            yield from _listed_files(layer, Path(source))
    mean_file = layer.transform_param.mean_file
    if mean_file and not Path(mean_file).exists():
        yield _sentence(layer, "transform_param.mean_file", mean_file)
    output = layer.hdf5_output_param.file_name
    if layer.type == "HDF5Output" and output and not Path(output).parent.is_dir():
        yield _sentence(layer, "the folder of hdf5_output_param.file_name", str(Path(output).parent))


def _listed_files(layer: LayerParameter, source: Path) -> Iterator[str]:
    try:
        lines = source.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return  # the layer says what is wrong with it
    for path in lines:
        if not Path(path).exists():
            yield _sentence(layer, f"a file that '{source}' lists", path)


def _sentence(layer: LayerParameter, what: str, path: str) -> str:
    looked_up = "" if Path(path).is_absolute() else f", looked up from {Path.cwd()}"
    return f"layer '{layer.name}' ({layer.type}): {what}, '{path}', does not exist{looked_up}"
