"""Kernels for a GPU, in Triton: what `fw_rl.scan` and the cells compute there. Nothing here is imported before it is needed."""
