"""The layers that benchmarks/layers.py times: a prototxt body and the bottoms of each, at sizes of LeNet, CaffeNet and ResNet.

Values of a bottom: "normal"; "positive" from 0.1 to 1; "rows", positive and adding up to 1 along axis 1; "labels K", whole
numbers below K; "bits", 0 and 1 in turn; "ones"; "mask S", the places that a max pooling of S x S windows gives; "regions",
of ROIPooling.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    type: str
    size: str
    """Tells cases of one type apart."""
    bottoms: tuple[tuple[tuple[int, ...], str], ...]
    fields: str = ""
    top_count: int = 0
    """0: the least that the layer makes."""
    backward: bool = True
    fixed: tuple[int, ...] = ()
    """Bottoms of numbers that have no gradient all the same: weights of a loss."""

    @property
    def name(self) -> str:
        return f"{self.type} {self.size}".strip()


# Types that bring data in or out, run the user's code, or move nothing: there is nothing to time, or nothing to compare with.
LEFT_OUT = {
    "ConvolutionDepthwise", "Data", "DummyData", "Flatten", "HDF5Data", "HDF5Output", "ImageData", "Input", "MemoryData",
    "Parameter", "Python", "Reshape", "Silence", "WindowData",
}  # fmt: skip

RESNET = (16, 64, 56, 56)
CAFFENET = (16, 96, 55, 55)
SCORES = (64, 1000)
PIXELS = (2, 21, 128, 128)


def _plain(type_: str, fields: str = "", kind: str = "normal", backward: bool = True) -> Case:
    return Case(type_, "", ((RESNET, kind),), fields, backward=backward)


def _pair(type_: str, shape: tuple[int, ...], other: tuple[int, ...], kind: str, fields: str = "") -> Case:
    return Case(type_, "", ((shape, "normal"), (other, kind)), fields)


CASES = [
    # value by value
    _plain("AbsVal"), _plain("BNLL"), _plain("Clip", "clip_param { min: -1 max: 1 }"), _plain("ELU"), _plain("Exp"),
    _plain("Log", kind="positive"), _plain("PReLU"), _plain("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"),
    _plain("ReLU"), _plain("ReLU6"), _plain("Sigmoid"), _plain("Swish"), _plain("TanH"),
    _plain("Threshold", backward=False), _plain("Dropout"),
    Case("Eltwise", "SUM", ((RESNET, "normal"),) * 2),
    Case("Eltwise", "PROD", ((RESNET, "normal"),) * 2, "eltwise_param { operation: PROD }"),
    Case("Eltwise", "MAX", ((RESNET, "normal"),) * 2, "eltwise_param { operation: MAX }"),
    # learned
    Case("Convolution", "LeNet 5x5", (((64, 20, 12, 12), "normal"),), "convolution_param { num_output: 50 kernel_size: 5 }"),
    Case("Convolution", "CaffeNet 5x5, 2 groups", (((16, 96, 27, 27), "normal"),),
         "convolution_param { num_output: 256 kernel_size: 5 pad: 2 group: 2 }"),
    Case("Convolution", "ResNet 3x3", ((RESNET, "normal"),), "convolution_param { num_output: 64 kernel_size: 3 pad: 1 }"),
    Case("Convolution", "ResNet 1x1", (((16, 256, 28, 28), "normal"),), "convolution_param { num_output: 64 kernel_size: 1 }"),
    Case("Deconvolution", "4x4, stride 2", (((8, 64, 28, 28), "normal"),),
         "convolution_param { num_output: 64 kernel_size: 4 stride: 2 pad: 1 }"),
    Case("DepthwiseConvolution", "MobileNet 3x3", (((16, 128, 56, 56), "normal"),),
         "convolution_param { num_output: 128 kernel_size: 3 pad: 1 }"),
    Case("InnerProduct", "LeNet", (((64, 800), "normal"),), "inner_product_param { num_output: 500 }"),
    Case("InnerProduct", "CaffeNet", (((16, 9216), "normal"),), "inner_product_param { num_output: 4096 }"),
    Case("Embed", "", (((1280,), "labels 8801"),), "embed_param { input_dim: 8801 num_output: 512 bias_term: false }"),
    _plain("Scale", "scale_param { bias_term: true }"), _plain("Bias"),
    Case("LSTM", "", (((20, 64, 256), "normal"), ((20, 64), "ones")), "recurrent_param { num_output: 256 }"),
    Case("RNN", "", (((20, 64, 256), "normal"), ((20, 64), "ones")), "recurrent_param { num_output: 256 }"),
    Case("LSTMUnit", "", (((1, 256, 512), "normal"), ((1, 256, 2048), "normal"), ((1, 256), "ones"))),
    # normalization and pooling
    _plain("BatchNorm"), _plain("BN", "bn_param { slope_filler { value: 1 } }"),
    _plain("SyncBN", "bn_param { slope_filler { value: 1 } }"), _plain("MVN"),
    Case("LRN", "across channels", ((CAFFENET, "normal"),), "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"),
    Case("LRN", "within channel", ((CAFFENET, "normal"),),
         "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 norm_region: WITHIN_CHANNEL }"),
    Case("Normalize", "SSD", (((8, 512, 38, 38), "normal"),), "norm_param { across_spatial: false channel_shared: false }"),
    Case("Pooling", "MAX 3x3", ((CAFFENET, "normal"),), "pooling_param { kernel_size: 3 stride: 2 }"),
    Case("Pooling", "AVE 3x3", ((CAFFENET, "normal"),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
    Case("Pooling", "AVE global", (((16, 2048, 7, 7), "normal"),), "pooling_param { pool: AVE global_pooling: true }"),
    Case("Pooling", "STOCHASTIC 3x3", ((CAFFENET, "positive"),), "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }"),
    Case("SPP", "", (((16, 256, 13, 13), "normal"),), "spp_param { pyramid_height: 3 }"),
    Case("ROIPooling", "Fast R-CNN", (((2, 512, 38, 50), "normal"), ((128, 5), "regions")),
         "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }"),
    Case("Softmax", "classes", ((SCORES, "normal"),)), Case("Softmax", "pixels", ((PIXELS, "normal"),)),
    # shapes
    Case("ArgMax", "", ((SCORES, "normal"),), "argmax_param { axis: 1 }", backward=False),
    Case("Axpy", "", (((16, 256, 1, 1), "normal"), ((16, 256, 28, 28), "normal"), ((16, 256, 28, 28), "normal"))),
    Case("BatchReindex", "", ((RESNET, "normal"), ((16,), "labels 16"))),
    Case("Concat", "", ((RESNET, "normal"),) * 2), Case("Slice", "", ((RESNET, "normal"),), top_count=2),
    Case("Split", "", ((RESNET, "normal"),), top_count=2),
    Case("Crop", "", (((16, 64, 64, 64), "normal"), (RESNET, "ones")), "crop_param { offset: 4 }"),
    Case("Filter", "", ((RESNET, "normal"), ((16,), "bits"))),
    Case("Im2col", "", ((RESNET, "normal"),), "convolution_param { kernel_size: 3 pad: 1 }"),
    Case("Interp", "DeepLab", (((2, 21, 41, 41), "normal"),), "interp_param { zoom_factor: 8 }"),
    Case("Permute", "SSD", (((8, 126, 38, 38), "normal"),), "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    Case("Reduction", "", ((RESNET, "normal"),), "reduction_param { axis: 1 }"),
    Case("ShuffleChannel", "", (((16, 240, 28, 28), "normal"),), "shuffle_channel_param { group: 3 }"),
    Case("Tile", "", (((16, 64, 28, 28), "normal"),), "tile_param { axis: 1 tiles: 4 }"),
    Case("Upsample", "SegNet", (((4, 64, 90, 120), "normal"), ((4, 64, 90, 120), "mask 2"))),
    # losses and measures
    Case("Accuracy", "", ((SCORES, "normal"), ((64,), "labels 1000")), backward=False),
    _pair("CenterLoss", (128, 512), (128,), "labels 1000", "center_loss_param { num_output: 1000 }"),
    Case("ContrastiveLoss", "", (((256, 128), "normal"), ((256, 128), "normal"), ((256,), "bits"))),
    _pair("EuclideanLoss", (64, 4096), (64, 4096), "normal"), _pair("FocalLoss", PIXELS, (2, 128, 128), "labels 21"),
    _pair("HingeLoss", SCORES, (64,), "labels 1000"),
    Case("InfogainLoss", "", (((64, 100), "normal"), ((64,), "labels 100"), ((1, 1, 100, 100), "positive")), fixed=(2,)),
    _pair("L1Loss", (64, 4096), (64, 4096), "normal"),
    Case("MultinomialLogisticLoss", "", ((SCORES, "rows"), ((64,), "labels 1000"))),
    _pair("SigmoidCrossEntropyLoss", (64, 4096), (64, 4096), "bits"),
    Case("SmoothL1Loss", "Faster R-CNN", (((128, 84, 7, 7), "normal"),) * 4, fixed=(2, 3)),
    Case("SoftmaxWithLoss", "classes", ((SCORES, "normal"), ((64,), "labels 1000"))),
    Case("SoftmaxWithLoss", "pixels", ((PIXELS, "normal"), ((2, 128, 128), "labels 21"))),
]  # fmt: skip
