"""DynamicViT (Rao et al., "DynamicViT: Efficient Vision Transformers with Dynamic Token
Sparsification", NeurIPS 2021): trained predictors choose the patches. Needs its own checkpoint."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from asap.core.predictor import keep_scores, predictor_macs
from asap.core.ranking import ranked_target
from asap.methods.base import Anatomy, Decision, Method, Position, Site, require
from asap.methods.dynamicvit.checkpoint import Checkpoint, Weights, read_checkpoint
from asap.methods.schedule import (
    require_blocks,
    require_rate,
    require_stages,
    stage_blocks,
)


@dataclass(frozen=True)
class DynamicViT(Method):
    """Before a few blocks keeps the patches that a trained predictor scores highest.

    The kept ones stay in score order; nothing is fused. Trained, not training-free: predictors and
    backbone come from one checkpoint, so `weights` goes to the backbone as well.

    In one stage, before the block: the predictor scores every patch from its own features and the
    patches' mean; the best stay; the whole block sees these alone.

    keep_rate: in (0, 1]; stage i keeps `trunc(keep_rate^i * patches)` of the patches at the start.
    A list gives each stage's share of those before it. A stage that would keep all does nothing.
    weights: the authors' file, {"model": DeiT's keys and score_predictor.0, 1, ...}, or such keys
    as .safetensors; read without executing code from it, predictors strictly.
    blocks: of the stages, from 0; None: 3, 6, 9 of 12, and alike (see `stage_blocks`).

    Predictors run in at least float32. Evidence: verified against the authors' code, not against
    their files.
    """

    keep_rate: float | Sequence[float] = 0.7
    weights: str | None = None
    blocks: Sequence[int] | None = None
    position: ClassVar[Position] = "before_block"
    no_knobs: ClassVar[str] = (
        "keeps the share of patches that its predictors were trained for: another cost takes "
        "another checkpoint"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_rate(self.keep_rate)
        require_blocks(self.blocks)

    def check(self, anatomy: Anatomy) -> None:
        require_stages(anatomy, self.blocks, "keep_rate", self.keep_rate)
        least = min(self.kept(anatomy).values())
        many = f"large enough to keep one of {anatomy.patches} patches"
        require(least >= 1, "keep_rate", self.keep_rate, many)
        found = self._file.predictors
        stages = len(stage_blocks(self.blocks, anatomy.depth))
        if len(found) != stages:
            raise ValueError(
                f"weights={self.weights!r} has {len(found)} predictors, not {stages}: give blocks, "
                "one for each"
            )
        width = len(found[0]["in_conv.0.weight"])
        if anatomy.width not in (0, width):
            raise ValueError(
                f"weights={self.weights!r} is for {width} channels, and {anatomy.name} has "
                f"{anatomy.width}: use the backbone it was trained with"
            )

    def check_weights(self, backbone: nn.Module) -> None:
        state = backbone.state_dict()
        for key, trained in self._file.backbone.items():
            held = state.get(key)
            if held is None or held.is_meta:
                continue
            if held.shape != trained.shape or not torch.equal(held, trained.to(held)):
                raise ValueError(
                    f"the predictors of weights={self.weights!r} belong to another backbone: set "
                    "backbone.weights to the same file, and leave backbone.ema at null"
                )

    def identity(self) -> dict[str, Any]:
        digest = None if self.weights is None else self._file.digest
        return {**asdict(self), "weights": digest}

    def acts_in(self, block: int, depth: int) -> bool:
        return block in stage_blocks(self.blocks, depth)

    def kept(self, anatomy: Anatomy) -> dict[int, int]:
        """Patches left, by block."""
        blocks = stage_blocks(self.blocks, anatomy.depth)
        rate: Any = self.keep_rate
        if isinstance(rate, tuple):
            shares = tuple(accumulate(rate, mul))
        else:
            shares = tuple(rate ** (i + 1) for i in range(len(blocks)))
        return {b: int(anatomy.patches * s) for b, s in zip(blocks, shares, strict=True)}

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Weights:
        return self._file.at(like)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        keep = self.kept(site.anatomy)[site.block]
        patches = site.tokens[:, site.prefix :]
        if keep >= patches.shape[1]:
            return None
        stage = stage_blocks(self.blocks, site.anatomy.depth).index(site.block)
        weights = site.state[stage]
        target = ranked_target(keep_scores(patches, weights), keep, site.prefix)
        macs = patches.shape[1] * predictor_macs(weights)
        return Decision(target, site.prefix + keep, macs=macs)

    @cached_property
    def _file(self) -> Checkpoint:
        if self.weights is None:
            raise ValueError(
                "weights=None is not possible: DynamicViT is trained; weights must be the path of "
                "one of its checkpoints, here and as backbone.weights"
            )
        return read_checkpoint(Path(self.weights).expanduser())
