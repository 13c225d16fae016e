"""Compile every GPU kernel as its wrapper launches it, without a GPU.

    python scripts/compile_kernels.py       # all, for Ada (sm_89) and Hopper (sm_90)
    python scripts/compile_kernels.py --only attention --arch 90 --dtypes float16 --head-sizes 64

Wrappers are called with tensors without memory (meta), and Triton compiles what they would launch
with its own ptxas. Printed for each kernel: registers of a thread, bytes of them spilled to memory,
bytes of shared memory of a block. The exit code is 1 if one does not compile or does not fit.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled

import torch
from rich.console import Console
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction, MockTensor

from asap.engine.kernels import launch, matching, ranking
from asap.engine.kernels.attention import ragged_attention
from asap.engine.kernels.class_row import class_row
from asap.engine.kernels.embed import patches_of
from asap.engine.kernels.embed_rows import embed_rows
from asap.engine.kernels.emergence import emergence
from asap.engine.kernels.gelu import linear_gelu
from asap.engine.kernels.head_mean_map import head_mean_map, map_dtype
from asap.engine.kernels.launch import pitch_of
from asap.engine.kernels.norm import add_norm
from asap.engine.kernels.regroup_plan import RegroupPlan, plan_regroup
from asap.engine.kernels.regroup_rows import regroup_rows
from asap.engine.kernels.sink import SinkRule, sink_reduction
from asap.engine.kernels.split_matrix import SplitMatrix, step_matrix
from asap.engine.kernels.trace_values import SMALLEST, Written, write_values
from asap.engine.kernels.walk import step_vectors
from asap.engine.kernels.weights import mean_weights

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SHARED_MEMORY = {  # bytes that a block may have
    80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376,
}  # fmt: skip
IMAGES, TOKENS, HEADS = 64, 197, 12


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def heads(dtype: torch.dtype, d: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Queries, keys and values as timm has them, and the offsets of the images."""
    qkv = empty(IMAGES * TOKENS, 3, HEADS, d, dtype=dtype)
    return qkv.unbind(1), empty(IMAGES + 1, dtype=torch.int32)


def attention(dtype: torch.dtype, d: int) -> None:
    (q, k, v), offsets = heads(dtype, d)
    bias, skip = empty(len(q), dtype=torch.float32), empty(IMAGES, dtype=torch.bool)
    ragged_attention(q, k, v, offsets, TOKENS, d**-0.5)
    ragged_attention(q, k, v, offsets, TOKENS, d**-0.5, bias, skip, lse=True)
    plan = RegroupPlan.empty(len(q), IMAGES, TOKENS - 1, q.device)
    ragged_attention(q, k, v, offsets, TOKENS, d**-0.5, plan=plan, epsilon=1e-6)


def attention_map(dtype: torch.dtype, d: int) -> None:
    (q, k, _), offsets = heads(dtype, d)
    lse = empty(len(q), HEADS, dtype=torch.float32)
    bias, watched = empty(len(q), dtype=torch.float32), empty(IMAGES, dtype=torch.bool)
    head_mean_map(q, k, lse, offsets, TOKENS, d**-0.5)
    head_mean_map(q, k, lse, offsets, TOKENS, d**-0.5, watched, bias)
    head_mean_map(q, k, lse.view(IMAGES, TOKENS, HEADS), offsets, TOKENS, d**-0.5, watched)


def walk(dtype: torch.dtype, d: int) -> None:
    images, watched = empty(IMAGES, dtype=torch.int64), empty(IMAGES, dtype=torch.bool)
    for n in (TOKENS, 1025):
        pitch = pitch_of(n)
        maps = empty(IMAGES, pitch, pitch, dtype=map_dtype(dtype))[:, :n, :n]
        vectors = empty(IMAGES, 2, n, dtype=torch.float32)
        for first in (True, False):
            step_vectors(vectors, maps, 0.5, images, watched, first)
            step_matrix(SplitMatrix.empty(IMAGES, n, maps), maps, 0.5, images, watched, first)


def sink(dtype: torch.dtype, d: int) -> None:
    images, chosen = empty(IMAGES, dtype=torch.int64), empty(IMAGES, dtype=torch.bool)
    for n in (TOKENS, 1025):
        matrix = SplitMatrix.empty(IMAGES, n, empty(0, dtype=map_dtype(dtype)))
        vectors = empty(IMAGES, 2, n, dtype=torch.float32)
        for given in (
            ("sink", 4, 1, True, "width", "minmax_others", "raw", "all", 1.0),
            ("quiet", 4, 1, False, "rank", "max", "raw", "patches", 1.0),
        ):
            sink_reduction(SinkRule(*given), vectors, matrix, 1, images, chosen)


def decisions(dtype: torch.dtype, d: int) -> None:
    keys = heads(dtype, d)[0][1].unflatten(0, (IMAGES, TOKENS)).transpose(1, 2)
    metric = matching.mean_of_heads(keys)
    assert metric is not None
    matching.bipartite_matching(metric, 8, 1)
    for n in (TOKENS - 1, 2880):
        scores = empty(IMAGES, n, dtype=torch.float32)
        ranking.ranks(scores)
        emergence(scores, 3.0)
        ranking.ranked_target(scores, n // 2, 1)
        mean_weights(scores, empty(IMAGES, n, dtype=torch.int64))


def trace(dtype: torch.dtype, d: int) -> None:
    total, flags = empty(IMAGES, dtype=torch.int64), empty(IMAGES, dtype=torch.bool)
    lead, mass = empty(IMAGES, dtype=torch.float32), empty(IMAGES, 12, dtype=torch.float32)
    columns = [Written(mass[:, 3], lead), Written(lead, lead, SMALLEST), Written(total, total)]
    write_values(total, 2**40, columns, flags, (total, 4), (total, 768))
    write_values(total, total, columns[:1])


def rows(dtype: torch.dtype, d: int) -> None:
    total, dim = IMAGES * TOKENS, HEADS * d
    target, source = (empty(IMAGES, k, dtype=torch.int64) for k in (TOKENS, TOKENS - 1))
    offsets, left = empty(IMAGES + 1, dtype=torch.int32), empty(IMAGES, dtype=torch.int64)
    weight, flags = empty(IMAGES, TOKENS, dtype=torch.float32), empty(IMAGES, dtype=torch.bool)
    packed, factor = empty(total, dim, dtype=dtype), empty(dim, dtype=dtype)
    sizes, positions = empty(total, dtype=torch.float32), empty(total, dtype=torch.int64)
    adaptive = plan_regroup(target, left, offsets, source, total, weight, flags, flags, True)
    plan_regroup(target, TOKENS - 8, offsets, source, total)
    facts = (sizes, positions)
    norm = (factor, factor, 1e-6)
    regroup_rows(adaptive, offsets, TOKENS, packed, packed, *facts, weight, norm)
    regroup_rows(adaptive, offsets, TOKENS, packed, None, *facts)


def class_attention(dtype: torch.dtype, d: int) -> None:
    (q, k, _), offsets = heads(dtype, d)
    class_row(q, k, offsets, TOKENS, d**-0.5, empty(len(q), dtype=torch.float32))


def layers(dtype: torch.dtype, d: int) -> None:
    """Add and LayerNorm, embedding, and an MLP's first layer: at few rows and at many."""
    dim = 12 * d
    for count in (TOKENS, IMAGES * TOKENS):
        x = empty(count, dim, dtype=dtype)
        weight, bias = empty(4 * dim, dim, dtype=dtype), empty(4 * dim, dtype=dtype)
        add_norm(x, x, bias[:dim], bias[:dim], 1e-6)
        add_norm(x, None, bias[:dim], None, 1e-6)
        linear_gelu(x, weight, bias)
    x = empty(IMAGES * (TOKENS - 1), dim, dtype=dtype)
    embed_rows(x, x[:1], x[:TOKENS], bias[:dim], bias[:dim], 1e-6)
    for patch in (14, 16):
        patches_of(empty(IMAGES, 3, 16 * patch, 16 * patch, dtype=dtype), patch)


# Name -> calls of wrappers, in a precision and with a head size.
CASES: dict[str, Callable[[torch.dtype, int], None]] = {
    "attention": attention,
    "map": attention_map,
    "class_row": class_attention,
    "layers": layers,
    "walk": walk,
    "sink": sink,
    "decisions": decisions,
    "trace": trace,
    "rows": rows,
}


class Device:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return self.arch  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)


class Compiling:
    """Compiles instead of launching, and prints what the compiler says of a kernel."""

    def __init__(self, console: Console, once: bool) -> None:
        self.console, self.once = console, once
        self.seen: set[str] = set()
        self.compiled: set[str] = set()
        self.failed = 0
        self._run = JITFunction.run

    def launch(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        if self.once and kernel.__name__ in self.seen:
            return None
        self.seen.add(kernel.__name__)
        given = [MockTensor(a.dtype) if isinstance(a, Tensor) else a for a in args]
        start = time.process_time()
        try:
            found = self._run(kernel, *given, grid=grid, warmup=True, **options)
        except Exception as error:  # whatever the compiler raises is what this script reports
            self.failed += 1
            self.console.print(f"FAILED {kernel.__name__} {options}: {error!r}")
            return None
        assert found is not None  # nothing only where a hook of Triton compiles in its place
        if found.hash not in self.compiled:
            self.compiled.add(found.hash)
            self.report(kernel, found, options, time.process_time() - start)
        return found

    def report(self, kernel: Any, found: Any, options: dict[str, Any], seconds: float) -> None:
        registers, spilled = usage(found.asm["cubin"])
        shared, arch = found.metadata.shared, found.metadata.target.arch
        fits = shared <= SHARED_MEMORY[arch]
        self.failed += not fits
        self.console.print(
            f"sm_{arch} {kernel.__name__:24s} registers {registers:3d}  spilled {spilled:4d}  "
            f"shared {shared:6d}{'' if fits else ' TOO MUCH'}  {seconds:4.1f} s  "
            + " ".join(f"{k}={v}" for k, v in options.items()),
            highlight=False,
            soft_wrap=True,
        )


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes on the stack (spilled registers) of a thread."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(file)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump does not name a kernel's registers: {text!r}")
    return int(found[1]), int(found[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--arch", nargs="+", type=int, choices=SHARED_MEMORY, default=[89, 90])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--head-sizes", nargs="+", type=int, default=[32, 64, 80])
    parser.add_argument("--once", action="store_true", help="each kernel in its first form only")
    asked = parser.parse_args()
    console = Console()
    compiling = Compiling(console, asked.once)
    launch.DEVICES.add("meta")

    def run(self: JITFunction[Any], *args: Any, grid: Any, warmup: Any, **options: Any) -> Any:
        return compiling.launch(self, *args, grid=grid, warmup=warmup, **options)

    JITFunction.run = run
    for arch in asked.arch:
        driver.set_active(cast(DriverBase, Device(arch)))
        for name in asked.only:
            for dtype in asked.dtypes:
                for d in asked.head_sizes:
                    CASES[name](DTYPES[dtype], d)
    console.print(f"{len(compiling.compiled)} kernels compiled, {compiling.failed} failed")
    return 1 if compiling.failed or not compiling.compiled else 0


if __name__ == "__main__":
    sys.exit(main())
