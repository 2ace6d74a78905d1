"""pycaffe's Classifier: a net that is given images of any size and says what they show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.proto import TEST
from paratrain.pycaffe.net import Net
from paratrain.tools.image_nets import create_transformer, image_input, predict

__all__ = ["Classifier"]


class Classifier(Net):
    """``Classifier(model_file, pretrained_file, image_dims=(256, 256), mean=..., raw_scale=255, channel_swap=(2, 1, 0))``.

    ``image_dims`` (height, width) is what images are resized to before crops of the size of the net's input are taken; that
    size itself where None. ``mean``, ``input_scale``, ``raw_scale`` and ``channel_swap`` are those of
    :class:`~paratrain.pycaffe.io.Transformer`, which is ``transformer``. Raises NetError for a net without an Input layer.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        image_dims: Sequence[int] | None = None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, phase=TEST, weights=pretrained_file)
        self.transformer = create_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.crop_dims = np.array(self.transformer.inputs[image_input(self)][2:])
        self.image_dims = self.crop_dims if image_dims is None or not len(image_dims) else image_dims

    def predict(self, inputs: Sequence[npt.ArrayLike], oversample: bool = True) -> npt.NDArray[Any]:
        """Return what the first output says of each image (H, W, K), one row for each.

        With ``oversample`` it is the mean over ten crops: corners, middle, and these mirrored; else that of the middle.
        Raises ShapeMismatchError for images that do not fit the net.
        """
        return predict(self, self.transformer, inputs, self.image_dims, oversample)
