"""Features from the middle of a net, for classifiers of one's own."""
import os

import numpy as np

import caffe

if os.environ.get("GLOG_minloglevel") is None:
    os.environ["GLOG_minloglevel"] = "2"
net = caffe.Net("sgd.net.prototxt", caffe.TEST, weights="init.caffemodel")
layer = "ip1"
features, labels = [], []
for _ in range(3):
    out = net.forward(end=layer)
    assert list(out) == ["ip1"], list(out)
    features.append(net.blobs[layer].data.copy())
    labels.append(net.blobs["label"].data.astype(int).copy())
features = np.concatenate(features)
assert len(features) == sum(map(len, labels))

# The rest of the net on what was kept, and the same layers all at once.
first = features[: len(labels[0])]
net.blobs["ip1"].data[...] = first
rest = net.forward(start="tanh1", blobs=["ip2"])["ip2"].copy()
index = list(net._layer_names).index(layer)
net._forward(index + 1, len(net.layers) - 1)
w, b = [p.data for p in net.params["ip2"]]
np.testing.assert_allclose(rest, np.tanh(first).dot(w.T) + b, rtol=1e-4, atol=1e-4)
print("features", features.shape)
