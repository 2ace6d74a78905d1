"""The machine and the tree: which links join the GPUs and ranks, and how gradients and parameters should travel.

`machine` is the model, `link_figures` what its links can do, `tree` the result, `planner` the trees that need no search.
`sources` fills the model from the driver and the system, `text` from saved text, `files` from JSON, `known_machines` from
the catalogue. `costs` predicts and simulates the time of an exchange, `planning` searches for the best tree, `show` draws
it. Nothing here knows arrays, nets or MPI.
"""
