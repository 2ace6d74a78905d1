"""The machine and the tree: which links join the GPUs and ranks, and how gradients and parameters should travel.

`machine` is the model, `nvml` and `matrix` fill it (from the driver, from saved text), `planner` makes a `tree.Tree` of
it, `cost` predicts the time of an exchange, `draw` and `report` show it. Nothing here knows arrays, nets or MPI.
"""
