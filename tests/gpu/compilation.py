"""Compile the kernels of a GPU without one, in place of running them; a line for each says how much shared memory it takes.

    python -m tests.gpu.compilation 90

The number is the compute capability, times ten. It must run without Triton's interpreter.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from fw_rl import kernels
from fw_rl.cells import make_cell
from fw_rl.scan import scan

POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bool: "*i1", torch.int32: "*i32"}

CELLS = (
    ("fast-weights", 128, 1, {}),
    ("fast-weights", 100, 3, dict(rule="oja", learn_decay=True, window=2, inner_steps=2)),
    ("delta-net", 512, 3, dict(gated=True)),
    ("delta-net", 128, 1, dict(rule="sum")),
    ("lru", 128, 1, {}),
)
"""Name, units, steps of a sequence, and options."""


def compile_instead(target):
    """Have every launch of a kernel compile it, as it would be for these arguments."""

    def run(kernel, *args, grid, warmup, **kwargs):
        options = {name: kwargs.pop(name) for name in ("num_warps",) if name in kwargs}
        signature, constants = {}, {}
        for parameter in kernel.params:
            value = kernel.signature.bind(*args, **kwargs).arguments[parameter.name]
            if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            else:
                signature[parameter.name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=target, options=options)
        print(f"{kernel.__module__}.{kernel.__name__}: {compiled.metadata.shared} bytes of shared memory", flush=True)

    JITFunction.run = run


def main(capability):
    compile_instead(GPUTarget("cuda", capability, 32))
    kernels._is_interpreted = lambda: True  # kernels take what lies on the processor
    for name, size, steps, options in CELLS:
        cell = make_cell(name, 8, size, **options)
        y, _ = cell(torch.zeros(steps, 2, 8), cell.initial_state(2), torch.zeros(steps, 2, dtype=torch.bool))
        y.sum().backward()
    gates = torch.zeros(3, 2, 128, requires_grad=True)  # as in min-gru, which has other kernels on the processor
    scan(gates, gates, torch.zeros(2, 128), torch.zeros(3, 2, dtype=torch.bool)).sum().backward()


if __name__ == "__main__":
    main(int(sys.argv[1]))
