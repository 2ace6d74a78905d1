"""Which fork of Caffe a layer type belongs to, of those that paratrain does not have."""

from __future__ import annotations

__all__ = ["FORK_LAYERS", "fork_of_layer"]

_SSD = "SSD (weiliu89/caffe, also in NVIDIA/caffe and intel/caffe)"
_NVCAFFE = "NVIDIA/caffe"
_INTEL = "intel/caffe"
_TSN = "yjxiong/caffe"
_FLOWNET = "FlowNet (lmb-freiburg)"
_DEEPLAB = "DeepLab"

FORK_LAYERS = {
    "AnnotatedData": _SSD,
    "BatchReduction": _TSN,
    "BoxAnnotatorOHEM": f"R-FCN and {_INTEL}",
    "BoxData": _INTEL,
    "Correlation": _FLOWNET,
    "DataAugmentation": _FLOWNET,
    "DenseCRF": _DEEPLAB,
    "DenseImageData": "SegNet",
    "DetectNetTransformation": _NVCAFFE,
    "DetectionEvaluate": _SSD,
    "DetectionOutput": _SSD,
    "EvalDetection": _INTEL,
    "FlowWarp": "FlowNet 2 (lmb-freiburg)",
    "Gather": _TSN,
    "MKLBatchNorm": _INTEL,
    "MarginInnerProduct": "SphereFace",
    "MatRead": _DEEPLAB,
    "MatWrite": _DEEPLAB,
    "MnActivation": _INTEL,
    "MultiBoxLoss": _SSD,
    "MultiStageMeanfield": "CRF-RNN",
    "PSROIPooling": f"R-FCN and {_INTEL}",
    "PriorBox": _SSD,
    "RegionLoss": _INTEL,
    "Reorg": _INTEL,
    "Resample": "FlowNet 2 (lmb-freiburg)",
    "Scatter": _TSN,
    "SegAccuracy": _DEEPLAB,
    "SegData": _TSN,
    "SmoothL1LossOHEM": f"R-FCN and {_INTEL}",
    "SoftmaxWithLossOHEM": f"R-FCN and {_INTEL}",
    "SpatialDropout": _INTEL,
    "SpatialTransformer": "forks with spatial transformers",
    "TRT": _NVCAFFE,
    "TripletLoss": "forks for face recognition",
    "UniqueLabel": _DEEPLAB,
    "VideoData": f"{_SSD} and {_TSN}",
}


def fork_of_layer(layer_type: str) -> str | None:
    """The fork, or forks, that a layer type comes from which paratrain does not have; None where that is not known."""
    return FORK_LAYERS.get(layer_type)
