"""pycaffe's Detector: a net that is given windows of images, warped to the size of its input (R-CNN, Girshick et al., 2014)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError
from paratrain.proto import TEST
from paratrain.pycaffe.net import Net
from paratrain.tools.image_nets import (
    Detection,
    Window,
    context_mean,
    create_transformer,
    crop_window,
    detect,
    image_input,
)

__all__ = ["Detector"]

_SELECTIVE_SEARCH = "selective_search_ijcv_with_python"


class Detector(Net):
    """``Detector(model_file, pretrained_file, mean=..., raw_scale=255, channel_swap=(2, 1, 0), context_pad=16)``.

    ``context_pad`` is how many pixels of a crop show what lies around the window, on each side; None for none. The others
    are those of :class:`~paratrain.pycaffe.io.Transformer`, which is ``transformer``. Raises NetError for a net without an
    Input layer.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, phase=TEST, weights=pretrained_file)
        self.transformer = create_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set ``context_pad``; ``crop_mean`` (H, W, K), shown beyond an image's rim, follows from the transformer."""
        name = image_input(self)
        _, channels, height, width = self.transformer.inputs[name]
        self.context_pad = context_pad
        self.crop_dims = np.array([height, width, channels])
        self.crop_mean = context_mean(self.transformer, name)

    def crop(self, im: npt.NDArray[np.float32], window: Window) -> npt.NDArray[np.float32]:
        """Return the pixels of a window (ymin, xmin, ymax, xmax) of an image (H, W, K), with context if that is set.

        Raises DataError for a window with no pixel of the image in it.
        """
        return crop_window(im, window, self.crop_dims[:2], self.context_pad or 0, self.crop_mean)

    def detect_windows(
        self, images_windows: Iterable[tuple[str | os.PathLike[str], Iterable[Window]]]
    ) -> list[Detection]:
        """Return what the first output says of windows: of pairs (image file, list of its windows).

        Each result is a dictionary: ``window``, ``prediction`` and ``filename``. Raises DataError for an image that cannot
        be read and for a window with no pixel of it.
        """
        return detect(self, self.transformer, images_windows, self.context_pad)

    def detect_selective_search(self, image_fnames: Iterable[str | os.PathLike[str]]) -> list[Detection]:
        """As ``detect_windows``, with the windows that selective search proposes (Uijlings et al., 2013).

        These are computed by a module that runs in MATLAB and does not come with paratrain. Raises DataError, which says what
        to do, where it is not there.
        """
        try:
            search = importlib.import_module(_SELECTIVE_SEARCH)
        except ImportError:
            raise DataError(
                f"selective search needs the module {_SELECTIVE_SEARCH} (by S. Karayev, for MATLAB), which is not "
                "installed; find windows by another program and give them to detect_windows([(image file, "
                "[(ymin, xmin, ymax, xmax), ...]), ...]), or to `paratrain detect` as a CSV file"
            ) from None
        paths = [str(Path(name).absolute()) for name in image_fnames]
        return self.detect_windows(zip(paths, search.get_windows(paths), strict=True))
