"""Methods by how they run on a GPU: some follow a schedule, some look at every image first."""

import torch
from contract import masses, threshold
from draws import WIDTH
from peers import predictor_file

from asap.methods import (
    PPT,
    Asap,
    Dense,
    DynamicViT,
    EViT,
    Method,
    RandomDrop,
    ToMe,
    VisionZip,
    VisPruner,
    ZeroTPrune,
)

KEY, COUNT = "plain-p64", 6  # the model they run on, and images of a batch
FIXED: dict[str, Method] = {
    "dense": Dense(),
    "tome": ToMe(3),
    "asap_static": Asap(binning="rank", miss="force", min_block=3, max_block=3),
    "evit": EViT(),
    "evit_dropping": EViT(fuse=False),
    "ppt": PPT(7, 7.0 / 64**2),
    "random_drop": RandomDrop(keep=0.5, block=2),
    "zero_tprune": ZeroTPrune(),
    "visionzip": VisionZip(6, 3, block=3),
    "vispruner": VisPruner(12, block=3),
    "dynamicvit": DynamicViT(0.6, predictor_file(WIDTH)),
    "overhead": Asap(overhead=True),
}
ADAPTIVE: dict[str, dict] = {  # options of ASAP
    "pooling": {},
    "pruning": {"pool": False},
    "rank": {"binning": "rank"},
    "quiet": {"anchor": "quiet"},
    "mass": {"anchor": "mass"},
    "no_accumulation": {"accumulate": False},
    "rollout": {"order": "rollout"},
    "random_anchor": {"anchor": "random"},
    "budget": {"max_tokens": 8},
    "plugin": {"max_tokens": 8, "plugin": "diffusion", "per_round": 2},
    "plugin_keys": {"max_tokens": 8, "plugin": "keys", "pool": False},
    "plugin_features": {"max_tokens": 8, "plugin": "features", "scores": "attention"},
    "auto": {"distance": "self_aligned", "clusters": "auto"},
    "late": {"min_block": 3},
    "after_block": {"position": "after_block"},
    "proportional": {"proportional_attention": True, "weights": "normalised"},
    "force": {"miss": "force"},
}


def stopping(options: dict, count: int) -> Asap:
    """ASAP with a tau at which `count` images stop in several blocks, and some never."""
    mass = masses(KEY, torch.float32, options.get("order", "walk"), count)
    return Asap(tau=threshold(mass, options.get("min_block", 1), mass.shape[1] - 1), **options)
