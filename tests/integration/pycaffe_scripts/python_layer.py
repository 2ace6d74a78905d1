"""A linear regression with a loss layer in Python, written with NetSpec."""
import numpy as np

import caffe
from caffe import layers as L
from caffe import params as P


def regression(loss):
    n = caffe.NetSpec()
    n.x = L.DummyData(shape=dict(dim=[8, 3]), data_filler=dict(type="gaussian"))
    n.y = L.DummyData(shape=dict(dim=[8, 2]), data_filler=dict(type="constant", value=1))
    n.ip = L.InnerProduct(n.x, num_output=2, weight_filler=dict(type="xavier"))
    n.loss = loss(n)
    return str(n.to_proto())


def own(n):
    return L.Python(n.ip, n.y, module="pyloss", layer="EuclideanLossLayer", param_str="{'scale': 2}", loss_weight=1)


for name, loss in (("own", own), ("built_in", lambda n: L.EuclideanLoss(n.ip, n.y, loss_weight=2))):
    open(name + ".prototxt", "w").write(regression(loss))
    with open(name + ".solver.prototxt", "w") as f:
        f.write('net: "%s.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 30 random_seed: 4 display: 0 '
                'snapshot_after_train: false snapshot_prefix: "%s"' % (name, name))
losses = {}
for name in ("own", "built_in"):
    solver = caffe.get_solver(name + ".solver.prototxt")
    losses[name] = []
    for _ in range(30):
        solver.step(1)
        losses[name].append(solver.net.blobs["loss"].data.sum() * (1 if name == "own" else 2))
    if name == "own":
        layer = solver.net.layers[list(solver.net._layer_names).index("loss")]
        assert layer.type == "Python" and layer.count == 30 and layer.param_str == "{'scale': 2}"
        layer.scale = 0.0  # reaches the object itself
        solver.net.forward()
        assert not solver.net.blobs["loss"].data.any()
np.testing.assert_allclose(losses["own"], losses["built_in"], rtol=1e-4)
assert losses["own"][-1] < 0.1 * losses["own"][0], losses["own"]
assert P.Pooling.AVE == 1
print("the layer in Python learns as the built-in one")
