"""Testing the links of a plan: known bytes go both ways over each edge, by the path that training takes, under a time limit.

`results` is what is found, `pattern` the bytes. CPU ranks: `ranks` runs on every rank, `shared` is its way through the memory
of a node. GPUs: `gpus` commands one child process (`worker`) for each GPU, which reaches CUDA through `cuda`. `cache`
keeps what was found, `veto` brings it into the machine's model and plans around bad links.
"""
