"""What a question costs LLaVA-NeXT 7B under ASAP, in closed form."""

from typing import Any

import numpy as np

from asap.backbones.adapter import BackboneAdapter
from asap.backbones.llava.sizes import NEXT_CROPS, VICUNA_7B, clip_large_336, parameters
from asap.core.macs import backbone_macs
from asap.errors import RequestError
from asap.methods import Asap, Dense, Method
from asap.methods.asap.forced_macs import forced_macs

BYTES = 2  # of a number, in half precision


def question_cost(method: Method, visual: int, text: int, stop: int) -> dict[str, Any]:
    """The costs in a `CostRecord`: parts, the paper's convention, weights and cache.

    visual: rows of the picture for the language model, equally many of each crop; all of them:
    nothing is removed. text: rows of the text. stop: the block in which every crop stops.
    RequestError for another method than dense and ASAP, and for rows that no crop can have.
    """
    towers, whole = clip_large_336(), clip_large_336(left_out=0)
    if visual % NEXT_CROPS or not 0 < visual <= NEXT_CROPS * towers.anatomy.patches:
        raise RequestError(
            f"{visual} visual rows are not possible: give a multiple of {NEXT_CROPS}, at most "
            f"{NEXT_CROPS * towers.anatomy.patches}"
        )
    rows = [visual + text] * VICUNA_7B.layers
    own = _method(method, towers, stop)
    bare = VICUNA_7B.prefill([visual] * VICUNA_7B.layers)
    stops = isinstance(method, Asap) and not method.overhead
    return {
        "stop": stop if stops else None,
        "macs": {
            "tower": NEXT_CROPS * _tower(method, towers, visual // NEXT_CROPS, stop),
            "projector": VICUNA_7B.projector(visual, towers.anatomy.width),
            "prefill": VICUNA_7B.prefill(rows),
            "method": NEXT_CROPS * own,
        },
        "macs_paper": bare
        + NEXT_CROPS * _tower(method, whole, visual // NEXT_CROPS, stop)
        + NEXT_CROPS * _method(method, whole, stop),
        "weights_bytes": BYTES * parameters(towers, VICUNA_7B),
        "kv_bytes": VICUNA_7B.kv_bytes(rows, BYTES),
    }


def _tower(method: Method, tower: BackboneAdapter, left: int, stop: int) -> int:
    """MACs of the tower on one crop, of which `left` rows remain behind the block `stop`."""
    anatomy = tower.anatomy
    tokens = np.full((1, anatomy.depth + 1), anatomy.tokens)
    tokens[:, stop:] = anatomy.prefix + left
    return int(backbone_macs(tower.cost, tokens, method.position)[0])


def _method(method: Method, tower: BackboneAdapter, stop: int) -> int:
    """MACs of the method itself on one crop."""
    if isinstance(method, Dense):
        return 0
    if not isinstance(method, Asap):
        raise RequestError(
            f"the modular cost is of ASAP, and this row has {type(method).__name__}: leave it out"
        )
    anatomy = tower.anatomy
    return forced_macs(method, anatomy.tokens, anatomy.prefix, anatomy.depth, stop)
