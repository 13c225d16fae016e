"""Which functions of the core have a kernel, made known for CUDA devices where Triton is there."""

from collections.abc import Callable
from typing import Any

from asap.core.accelerated import register
from asap.engine.kernels.emergence import emergence
from asap.engine.kernels.kept_walk import kernel_walk
from asap.engine.kernels.launch import INSTALLED
from asap.engine.kernels.matching import bipartite_matching, mean_of_heads
from asap.engine.kernels.ranking import ranked_target, ranks
from asap.engine.kernels.weights import mean_weights

VERSIONS: dict[str, Callable[..., Any]] = {
    "bipartite_matching": bipartite_matching,
    "emergence": emergence,
    "kept_walk": kernel_walk,
    "mean_of_heads": mean_of_heads,
    "mean_weights": mean_weights,
    "ranked_target": ranked_target,
    "ranks": ranks,
}


def register_kernels() -> None:
    """From now on the core's functions use kernels for tensors on CUDA devices."""
    if INSTALLED:
        register("cuda", VERSIONS)
