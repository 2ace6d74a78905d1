"""An image that excites a unit, by steps along the gradient of the input (as in deep dreams)."""
import numpy as np

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

model = caffe_pb2.NetParameter()
text_format.Merge(open("deploy.prototxt").read(), model)
model.force_backward = True
open("tmp.prototxt", "w").write(str(model))
net = caffe.Classifier("tmp.prototxt", "deploy.caffemodel", mean=np.float32([0.5]), raw_scale=1.0)


def objective_L2(dst):
    dst.diff[:] = dst.data


def make_step(net, step_size=0.5, end="conv2", objective=objective_L2):
    src = net.blobs["data"]  # input image is stored in the net's 'data' blob
    dst = net.blobs[end]
    net.forward(end=end)
    objective(dst)  # specify the optimization objective
    net.backward(start=end)
    g = src.diff[0]
    src.data[:] += step_size / np.abs(g).mean() * g


net.blobs["data"].data[...] = np.random.RandomState(1).uniform(-0.1, 0.1, net.blobs["data"].data.shape)
before = (net.forward(end="conv2")["conv2"] ** 2).sum()
for _ in range(5):
    make_step(net, step_size=0.05)
after = (net.forward(end="conv2")["conv2"] ** 2).sum()
assert after > 2 * before, (before, after)

# The gradient of one class score, given by name, against differences.
score = np.zeros((1, 3), np.float32)
score[0, 2] = 1
x = net.blobs["data"].data.copy()
net.forward(data=x)
diffs = net.backward(diffs=["conv2"], prob=score)
analytic = diffs["data"].copy()
assert diffs["conv2"].any()
h = 1e-2
for place in [(0, 0, 2, 3), (0, 0, 5, 5)]:
    up, down = x.copy(), x.copy()
    up[place] += h
    down[place] -= h
    numeric = (float(net.forward(data=up)["prob"][0, 2]) - float(net.forward(data=down)["prob"][0, 2])) / (2 * h)
    assert abs(numeric - analytic[place]) < 1e-2 * abs(analytic).max() + 1e-4, (numeric, analytic[place])
print("the image excites conv2: %.3f -> %.3f" % (before, after))
