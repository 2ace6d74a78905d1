"""Net surgery: an inner product becomes a convolution, and the classifier slides over larger images."""
import numpy as np

import caffe

FEATURES = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""
with open("classifier.prototxt", "w") as f:
    f.write(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 10 dim: 10 } } }'
        + FEATURES
        + """layer { name: "fc2" type: "InnerProduct" bottom: "pool1" top: "fc2" inner_product_param { num_output: 5
        weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
        layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3" inner_product_param { num_output: 3
        weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
        layer { name: "prob" type: "Softmax" bottom: "fc3" top: "prob" }"""
    )
with open("full_conv.prototxt", "w") as f:
    f.write(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 16 dim: 14 } } }'
        + FEATURES
        + """layer { name: "fc2-conv" type: "Convolution" bottom: "pool1" top: "fc2-conv"
        convolution_param { num_output: 5 kernel_size: 4 } }
        layer { name: "fc3-conv" type: "Convolution" bottom: "fc2-conv" top: "fc3-conv"
        convolution_param { num_output: 3 kernel_size: 1 } }
        layer { name: "prob" type: "Softmax" bottom: "fc3-conv" top: "prob" }"""
    )

caffe.set_mode_cpu()
net = caffe.Net("classifier.prototxt", caffe.TEST)
net.save("classifier.caffemodel")
params = ["fc2", "fc3"]
fc_params = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in params}
for fc in params:
    print("{} weights are {} dimensional and biases are {} dimensional".format(
        fc, fc_params[fc][0].shape, fc_params[fc][1].shape))

# Load the original network's parameters: the layers that keep their names keep their weights.
net_full_conv = caffe.Net("full_conv.prototxt", "classifier.caffemodel", caffe.TEST)
params_full_conv = ["fc2-conv", "fc3-conv"]
conv_params = {pr: (net_full_conv.params[pr][0].data, net_full_conv.params[pr][1].data) for pr in params_full_conv}
for pr, pr_conv in zip(params, params_full_conv):
    conv_params[pr_conv][0].flat = fc_params[pr][0].flat  # flat unrolls the arrays
    conv_params[pr_conv][1][...] = fc_params[pr][1]
net_full_conv.save("full_conv.caffemodel")

im = np.random.RandomState(0).rand(1, 1, 16, 14).astype(np.float32)
out = net_full_conv.forward_all(data=im)
assert out["prob"].shape == (1, 3, 4, 3), out["prob"].shape
for y in range(4):
    for x in range(3):
        crop = im[:, :, 2 * y:2 * y + 10, 2 * x:2 * x + 10]
        expected = net.forward(data=crop)["prob"][0]
        np.testing.assert_allclose(out["prob"][0, :, y, x], expected, rtol=1e-4, atol=1e-6)
again = caffe.Net("full_conv.prototxt", caffe.TEST, weights="full_conv.caffemodel")
np.testing.assert_array_equal(again.forward(data=im)["prob"], out["prob"])
# Another size, by hand.
net_full_conv.blobs["data"].reshape(2, 1, 12, 10)
net_full_conv.reshape()
assert net_full_conv.forward()["prob"].shape == (2, 3, 2, 1)
print("the classifier slides")
