"""Time every GPU kernel against the fewest bytes and operations that its work needs.

    python scripts/bench_kernels.py                 # on the machine's CUDA device
    python scripts/bench_kernels.py --models base tiny --images 256 --dtypes float16
    python scripts/bench_kernels.py --dry           # a rehearsal on any machine

A kernel is called ten times within one CUDA graph, so that launches cost nothing; kernels take
turns in shuffled order, round after round, and the median counts. Its floor is the longer of two
times: that of reading and writing each tensor once, and that of its multiply-accumulates, both at
the rates that this device reaches in the same run (a large copy; a large product of matrices of the
dtype). Caches are not emptied, as in a model, so a small kernel may be below its floor. Beside it
the same work by torch's own operations, where there are some. Writes
results/bench/<device>/kernels.csv.

With --dry the plain versions run on CPU with tiny tensors, and nothing is written unless --out says
where: it shows that the script works, and its times mean nothing.
"""

import argparse
import csv
import importlib
import pkgutil
import random
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from asap.core.accelerated import registered
from asap.core.emergence import emergence
from asap.core.matching import bipartite_matching, mean_of_heads
from asap.core.pooling import mean_weights
from asap.core.ranking import ranked_target
from asap.engine import kernels
from asap.engine.graphs import cuda_graphs
from asap.engine.kernels.attention import ragged_attention
from asap.engine.kernels.class_row import class_row
from asap.engine.kernels.embed import patches_of
from asap.engine.kernels.embed_rows import embed_rows
from asap.engine.kernels.equal_attention import equal_attention
from asap.engine.kernels.gelu import linear_gelu
from asap.engine.kernels.head_mean_map import head_mean_map, map_dtype
from asap.engine.kernels.launch import INSTALLED, pitch_of
from asap.engine.kernels.norm import add_norm
from asap.engine.kernels.registry import VERSIONS, register_kernels
from asap.engine.kernels.regroup_plan import plan_regroup
from asap.engine.kernels.regroup_rows import regroup_rows
from asap.engine.kernels.sink import SinkRule, sink_reduction
from asap.engine.kernels.split_matrix import SplitMatrix, step_matrix
from asap.engine.kernels.trace_values import Written, write_values
from asap.engine.kernels.walk import step_vectors

ROOT = Path(__file__).resolve().parents[1]
CALLS = 10  # in one graph
PATCH = 16
MODELS = {"tiny": (3, 64), "small": (6, 64), "base": (12, 64), "large": (16, 64)}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
FIELDS: tuple[str, ...] = (
    "kernel", "model", "images", "tokens", "heads", "head_size", "dtype", "us", "us_q1", "us_q3",
    "torch_us", "mbytes", "gmacs", "bytes_us", "macs_us", "times_floor", "device",
)  # fmt: skip
Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """A batch of a model: images of `tokens` tokens, one of them the class token, all packed."""

    images: int
    tokens: int
    heads: int
    head_size: int
    dtype: torch.dtype
    device: str

    @property
    def dim(self) -> int:
        return self.heads * self.head_size

    @property
    def rows(self) -> int:
        return self.images * self.tokens

    def random(self, *sizes: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*sizes, device=self.device).to(dtype or self.dtype)

    def qkv(self, rows: int) -> tuple[Tensor, ...]:
        """Queries, keys and values, strided as timm has them."""
        return self.random(rows, 3, self.heads, self.head_size).unbind(1)

    def offsets(self, lengths: Tensor) -> Tensor:
        ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return ends.to(torch.int32).to(self.device)

    def maps(self) -> Tensor:
        """Attention maps as the kernel leaves them: corners of zero-padded buffers."""
        n, pitch = self.tokens, pitch_of(self.tokens)
        out = torch.zeros(
            self.images, pitch, pitch, device=self.device, dtype=map_dtype(self.dtype)
        )
        out[:, :n, :n] = self.random(self.images, n, n, dtype=torch.float32).softmax(-1)
        return out[:, :n, :n]


@dataclass(frozen=True)
class Work:
    """What is timed: the kernel, the same by torch (None: not in few operations), bytes of tensors
    that it reads or writes, each counted once, and multiply-accumulates.
    """

    kernel: Call
    torch: Call | None
    bytes: int
    macs: int


def attention(s: Shape) -> Work:
    """Images of equal length, with the log-sum-exp."""
    q, k, v = s.qkv(s.rows)
    offsets, scale = s.offsets(torch.full((s.images,), s.tokens)), s.head_size**-0.5
    nbytes = 4 * s.rows * s.dim * s.dtype.itemsize + 4 * s.rows * s.heads
    return Work(
        lambda: ragged_attention(q, k, v, offsets, s.tokens, scale, lse=True),
        lambda: equal_attention(q, k, v, s.images, scale),
        nbytes,
        2 * s.rows * s.tokens * s.dim,
    )


def mixed_attention(s: Shape) -> Work:
    """Images of 4 to all tokens, about a third of them on average: the batch after a reduction."""
    draws = torch.randn(s.images, generator=torch.Generator().manual_seed(0))
    lengths = (s.tokens * (0.36 + 0.13 * draws)).round().clamp(4, s.tokens).long()
    rows, longest = int(lengths.sum()), int(lengths.max())
    q, k, v = s.qkv(rows)
    offsets = s.offsets(lengths)
    return Work(
        lambda: ragged_attention(q, k, v, offsets, longest, s.head_size**-0.5),
        None,
        4 * rows * s.dim * s.dtype.itemsize,
        2 * int((lengths**2).sum()) * s.dim,
    )


def attention_map(s: Shape) -> Work:
    q, k, v = s.qkv(s.rows)
    offsets, scale = s.offsets(torch.full((s.images,), s.tokens)), s.head_size**-0.5
    _, lse = ragged_attention(q, k, v, offsets, s.tokens, scale, lse=True)
    assert lse is not None
    out = torch.zeros(
        s.images, pitch_of(s.tokens), pitch_of(s.tokens), device=s.device, dtype=map_dtype(s.dtype)
    )
    by_q, by_k = (x.unflatten(0, (s.images, s.tokens)).transpose(1, 2) for x in (q, k))
    nbytes = 2 * s.rows * s.dim * s.dtype.itemsize + 4 * lse.numel() + out.nbytes
    return Work(
        lambda: head_mean_map(q, k, lse, offsets, s.tokens, scale, out=out),
        lambda: (by_q @ by_k.transpose(2, 3) * scale).softmax(-1).mean(1),
        nbytes,
        s.rows * s.tokens * s.dim,
    )


def class_attention(s: Shape) -> Work:
    q, k, _ = s.qkv(s.rows)
    offsets, scale = s.offsets(torch.full((s.images,), s.tokens)), s.head_size**-0.5
    by_q, by_k = (x.unflatten(0, (s.images, s.tokens)).transpose(1, 2) for x in (q, k))
    return Work(
        lambda: class_row(q, k, offsets, s.tokens, scale),
        lambda: (by_q[:, :, :1] @ by_k.transpose(2, 3) * scale).softmax(-1),
        (s.rows + s.images) * s.dim * s.dtype.itemsize + 4 * s.rows * s.heads,
        s.rows * s.dim,
    )


def patches(s: Shape) -> Work:
    side = PATCH * round((s.tokens - 1) ** 0.5)
    images = s.random(s.images, 3, side, side)
    return Work(lambda: patches_of(images, PATCH), None, 2 * images.nbytes, 0)


def embedded_rows(s: Shape) -> Work:
    given = s.random(s.images * (s.tokens - 1), s.dim)
    first, positions, norm = s.random(1, s.dim), s.random(s.tokens, s.dim), s.random(s.dim)
    nbytes = given.nbytes + 2 * s.rows * s.dim * s.dtype.itemsize
    return Work(lambda: embed_rows(given, first, positions, norm, norm, 1e-6), None, nbytes, 0)


def residual_norm(s: Shape) -> Work:
    x, update, norm = s.random(s.rows, s.dim), s.random(s.rows, s.dim), s.random(s.dim)
    return Work(
        lambda: add_norm(x, update, norm, norm, 1e-6),
        lambda: F.layer_norm(x + update, (s.dim,), norm, norm, 1e-6),
        4 * x.nbytes,
        0,
    )


def mlp_first(s: Shape) -> Work:
    x, weight, bias = s.random(s.rows, s.dim), s.random(4 * s.dim, s.dim), s.random(4 * s.dim)
    return Work(
        lambda: linear_gelu(x, weight, bias),
        lambda: F.gelu(F.linear(x, weight, bias)),
        5 * x.nbytes + weight.nbytes,
        4 * s.rows * s.dim**2,
    )


def walk_vectors(s: Shape) -> Work:
    maps, n = s.maps(), s.tokens
    vectors = torch.ones(s.images, 2, n, device=s.device)
    nbytes = s.images * n * n * maps.itemsize + 2 * vectors.nbytes
    wide = maps.float()
    return Work(
        lambda: step_vectors(vectors, maps, 0.5),
        lambda: torch.baddbmm(vectors, vectors, wide, beta=0.5, alpha=0.5),
        nbytes,
        2 * s.images * n * n,
    )


def _walk(s: Shape) -> tuple[SplitMatrix, Tensor]:
    maps = s.maps()
    matrix = SplitMatrix.empty(s.images, s.tokens, maps)
    step_matrix(matrix, maps, 0.5, first=True)
    return matrix, maps


def walk_matrix(s: Shape) -> Work:
    """P of 22 bits: two products of half precision, or one of float32."""
    matrix, maps = _walk(s)
    parts = 1 if matrix.low is None else 2
    return Work(
        lambda: step_matrix(matrix, maps, 0.5),
        lambda: [torch.bmm(matrix.high[:, : s.tokens, : s.tokens], maps) for _ in range(parts)],
        (2 * parts + 1) * s.images * s.tokens**2 * maps.itemsize,
        parts * s.images * s.tokens**3,
    )


def sink(s: Shape) -> Work:
    """All images stop: sink, distances, clusters, weights, positions."""
    matrix, maps = _walk(s)
    vectors = torch.ones(s.images, 2, s.tokens, device=s.device)
    step_vectors(vectors, maps, 0.5)
    rule = SinkRule("sink", 4, 1, True, "width", "minmax_others", "raw", "all", 1.0)
    parts = 1 if matrix.low is None else 2
    return Work(
        lambda: sink_reduction(rule, vectors, matrix, 1),
        None,
        (parts * maps.itemsize * s.tokens + 8 + 4) * s.rows,
        s.images * s.tokens**2,
    )


def _decision(s: Shape) -> tuple[Any, ...]:
    """Two thirds of every image's tokens meet in its last one."""
    left = max(2, s.tokens // 3)
    place = torch.arange(s.tokens, device=s.device)
    target = place.clamp(max=left - 1).repeat(s.images, 1)
    weight = torch.where(place < left - 1, 1.0, 1 / (s.tokens - left + 1)).repeat(s.images, 1)
    offsets = s.offsets(torch.full((s.images,), s.tokens))
    source = torch.arange(1, s.tokens, device=s.device).repeat(s.images, 1)
    return target, left, offsets, source, s.rows, weight


def regroup_order(s: Shape) -> Work:
    given = _decision(s)
    nbytes = (8 + 4 + 16 + 3 * 4) * s.rows  # target, weight, the patches' tokens, members and ends
    return Work(lambda: plan_regroup(*given), None, nbytes, 0)


def regroup_merge(s: Shape) -> Work:
    """Averages, residual and LayerNorm."""
    given = _decision(s)
    plan, left, offsets, weight = plan_regroup(*given), given[1], given[2], given[5]
    x, update, norm = s.random(s.rows, s.dim), s.random(s.rows, s.dim), s.random(s.dim)
    sizes = torch.ones(s.rows, device=s.device)
    places = torch.arange(s.tokens, device=s.device).repeat(s.images)
    facts = (x, update, sizes, places, weight, (norm, norm, 1e-6))
    return Work(
        lambda: regroup_rows(plan, offsets, s.tokens, *facts),
        None,
        (2 * s.rows + 2 * s.images * left) * s.dim * s.dtype.itemsize,
        s.rows * s.dim,
    )


def without_kernels(call: Call) -> Call:
    """The call with the core's own operations."""
    none = dict.fromkeys(VERSIONS, lambda *_: None)

    def plain() -> object:
        with registered("cuda", none):
            return call()

    return plain


def _by_core(call: Call, nbytes: int, macs: int = 0) -> Work:
    """A function of the core that asks for its kernel, against its own operations."""
    return Work(call, without_kernels(call), nbytes, macs)


def kept_positions(s: Shape) -> Work:
    """The better half of every image's patches, best first."""
    scores = s.random(s.images, s.tokens - 1, dtype=torch.float32)
    return _by_core(lambda: ranked_target(scores, s.tokens // 2, 1), 3 * scores.nbytes)


def pairs(s: Shape) -> Work:
    """ToMe's: the mean over heads of the keys, then r = 11 pairs (of the smallest, a quarter)."""
    keys = s.random(s.images, s.heads, s.tokens, s.head_size)
    like = torch.empty(0, device=s.device)
    r, d = min(11, s.tokens // 4), s.head_size
    nbytes = keys.nbytes + 8 * s.rows + 2 * 4 * s.rows * d  # the mean is written and read
    return _by_core(
        lambda: bipartite_matching(mean_of_heads(keys, like), r, 1),
        nbytes,
        s.images * (s.tokens // 2) * (s.tokens - s.tokens // 2) * d,
    )


def means(s: Shape) -> Work:
    """Weights of a mean: two thirds of every image's tokens meet in its last one."""
    target, sizes = _decision(s)[0], torch.ones(s.images, s.tokens, device=s.device)
    return _by_core(lambda: mean_weights(sizes, target), 2 * sizes.nbytes + target.nbytes)


def mass_test(s: Shape) -> Work:
    """The largest column mass of every image against tau."""
    mass = s.random(s.images, s.tokens - 1, dtype=torch.float32).abs()
    return _by_core(lambda: emergence(mass, 3.0), mass.nbytes + 9 * s.images)


def trace_entry(s: Shape) -> Work:
    """What a block adds to the trace of all images: MACs and one column."""
    total = torch.zeros(s.images, dtype=torch.int64, device=s.device)
    held, value = (torch.zeros(s.images, device=s.device) for _ in range(2))
    columns = [Written(held, value)]
    return Work(
        lambda: write_values(total, 1, columns), None, 2 * total.nbytes + 2 * held.nbytes, 0
    )


# By the file of the kernel package: what is timed of it.
CASES: dict[str, tuple[Callable[[Shape], Work], ...]] = {
    "attention": (attention, mixed_attention),
    "class_row": (class_attention,),
    "embed": (patches,),
    "embed_rows": (embedded_rows,),
    "emergence": (mass_test,),
    "gelu": (mlp_first,),
    "head_mean_map": (attention_map,),
    "matching": (pairs,),
    "norm": (residual_norm,),
    "ranking": (kept_positions,),
    "regroup_plan": (regroup_order,),
    "regroup_rows": (regroup_merge,),
    "sink": (sink,),
    "split_matrix": (walk_matrix,),
    "trace_values": (trace_entry,),
    "walk": (walk_vectors,),
    "weights": (means,),
}


def kernel_files() -> list[str]:
    """The files of the kernel package that launch a kernel of their own."""
    found = []
    for info in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{info.name}")
        own = vars(module).items()
        if any(k.startswith("_") and k.endswith("_kernel") for k, _ in own):
            found.append(info.name)
    return found


class Clock:
    """Times a call in microseconds: on CUDA the tenth of a graph of ten, on CPU by the clock."""

    def __init__(self, call: Call, device: str) -> None:
        self.call = call
        self.replay: Call | None = None
        call()
        call()
        if device == "cuda":
            self.replay = cuda_graphs(torch.device(device)).record(self._ten)
            self.replay()
            torch.cuda.synchronize()

    def _ten(self) -> None:
        for _ in range(CALLS):
            self.call()

    def take(self) -> float:
        if self.replay is None:
            began = time.perf_counter()
            self.call()
            return 1e6 * (time.perf_counter() - began)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.replay()
        end.record()
        end.synchronize()
        return 1e3 * begin.elapsed_time(end) / CALLS


def rates(dtype: torch.dtype, device: str) -> tuple[float, float]:
    """Bytes and multiply-accumulates per microsecond that the device reaches."""
    big = device == "cuda"
    x = torch.randn(2**26 if big else 2**14, device=device)
    y, side = torch.empty_like(x), 8192 if big else 64
    a = torch.randn(side, side, device=device).to(dtype)
    copy, product = (Clock(call, device) for call in (lambda: y.copy_(x), lambda: a @ a))
    copied, multiplied = (
        statistics.median(clock.take() for _ in range(7)) for clock in (copy, product)
    )
    return 2 * x.nbytes / copied, side**3 / multiplied


def bench(model: str, shape: Shape, rounds: int, chosen: list[str]) -> list[dict[str, Any]]:
    """A line of the CSV for every case; the kernels and torch's versions take turns."""
    work: dict[str, Work] = {}
    clocks: dict[tuple[str, str], Clock] = {}
    for case in (case for name in chosen for case in CASES[name]):
        name = case.__name__
        try:
            one = case(shape)
            clocks[name, "kernel"] = Clock(one.kernel, shape.device)
            work[name] = one
            if one.torch is not None:
                clocks[name, "torch"] = Clock(one.torch, shape.device)
        except Exception:  # whatever a compiler or a device raises: the others are timed
            print(f"left out: {name} of {model}:\n{traceback.format_exc(limit=-6)}", flush=True)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in clocks}
    order, shuffled = list(clocks), random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for key in order:
            taken[key].append(clocks[key].take())
    by_byte, by_mac = rates(shape.dtype, shape.device)
    about = {"model": model, "images": shape.images, "tokens": shape.tokens, "heads": shape.heads}
    about |= {"head_size": shape.head_size, "dtype": str(shape.dtype).removeprefix("torch.")}
    about["device"] = torch.cuda.get_device_name() if shape.device == "cuda" else "dry, on CPU"
    lines = []
    for name, one in work.items():
        q1, us, q3 = statistics.quantiles(taken[name, "kernel"], n=4)
        other = taken.get((name, "torch"))
        floors = one.bytes / by_byte, one.macs / by_mac
        numbers = {
            "us": us, "us_q1": q1, "us_q3": q3,
            "torch_us": statistics.median(other) if other else None,
            "mbytes": one.bytes / 1e6, "gmacs": one.macs / 1e9,
            "bytes_us": floors[0], "macs_us": floors[1], "times_floor": us / max(floors),
        }  # fmt: skip
        told = {k: None if v is None else float(f"{v:.4g}") for k, v in numbers.items()}
        lines.append({"kernel": name, **about, **told})
    return lines


def table_of(lines: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Kernels on {lines[0]['device']}, microseconds")
    heads = ("kernel", "model", "dtype", "us", "torch_us", "bytes_us", "macs_us", "times_floor")
    for head in heads:
        table.add_column(head, justify="left" if head in ("kernel", "model") else "right")
    for line in lines:
        table.add_row(*("" if line[head] is None else str(line[head]) for head in heads))
    return table


def write(lines: list[dict[str, Any]], out: Path | None) -> Path:
    """Write kernels.csv; its path."""
    name = re.sub(r"[^a-z0-9]+", "-", str(lines[0]["device"]).lower()).strip("-")
    path = (out or ROOT / "results" / "bench" / name) / "kernels.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return path


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "small", "base"])
    made.add_argument("--images", type=int, default=256)
    made.add_argument("--tokens", type=int, default=197, help="a square number and 1")
    made.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float16"])
    made.add_argument("--kernels", nargs="+", choices=CASES, default=list(CASES))
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--dry", action="store_true", help="rehearse on CPU with tiny tensors")
    made.add_argument("--out", type=Path, help="folder; default: results/bench/<device>")
    return made


def main(arguments: list[str] | None = None) -> int:
    commands = parser()
    given = commands.parse_args(arguments)
    if round((given.tokens - 1) ** 0.5) ** 2 != given.tokens - 1:
        commands.error(f"--tokens {given.tokens}: give a square number and 1, such as 197")
    if not given.dry and not (torch.cuda.is_available() and INSTALLED):
        commands.error("there is no CUDA device with Triton: give --dry to rehearse on CPU")
    device, console = "cpu" if given.dry else "cuda", Console(width=120)
    if given.dry:
        given.images, given.tokens, given.rounds = 2, 17, 2
    register_kernels()
    lines, path = list[dict[str, Any]](), None
    with torch.inference_mode():
        for dtype in given.dtypes:
            for model in given.models:
                shape = Shape(given.images, given.tokens, *MODELS[model], DTYPES[dtype], device)
                lines += bench(model, shape, given.rounds, given.kernels)
                if lines and (given.out is not None or not given.dry):
                    path = write(lines, given.out)  # one that is stopped leaves what it had
                if device == "cuda":
                    torch.cuda.empty_cache()
    if not lines:
        console.print("No kernel could be timed.")
        return 1
    console.print(table_of(lines))
    if missing := sorted(set(kernel_files()) - set(CASES)):
        console.print(f"Not timed, without a case in this script: {', '.join(missing)}.")
    if given.dry:
        console.print("A rehearsal on CPU: these times mean nothing.")
    if path is not None:
        console.print(f"Written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
