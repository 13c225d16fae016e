"""What a step of training is, from its number alone: clips, learning rate, weight decay.

Nothing depends on what ran before, so a training that was cut short goes on as if it had not been.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor, nn

from asap.data.base import hashed_id
from asap.spec.run_spec import HeadSpec

BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's, torch's defaults (Loshchilov and Hutter, 2019)


@dataclass(frozen=True)
class Recipe:
    """The steps of a training on a number of views, each an example of its own.

    The last step of an epoch has the examples that are left.
    """

    spec: HeadSpec
    examples: int

    @property
    def steps_of_epoch(self) -> int:
        return -(-self.examples // self.spec.batch_size)

    @property
    def steps(self) -> int:
        return self.spec.epochs * self.steps_of_epoch

    def epoch(self, step: int) -> int:
        """The epoch of a step; both count from 0."""
        return step // self.steps_of_epoch

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: a linear warm-up to `lr`, then half a cosine to 0.

        The last step of the warm-up has `lr` itself. The warm-up is the next whole number of steps.
        """
        warm = math.ceil(self.spec.warmup_epochs * self.steps_of_epoch)
        if step < warm:
            return self.spec.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.spec.lr * 0.5 * (1 + math.cos(math.pi * done))

    def batch(self, step: int) -> Int[Tensor, "b"]:
        """The numbers of a step's examples: a part of an order drawn from (seed, epoch)."""
        epoch, place = divmod(step, self.steps_of_epoch)
        order = _order(self.examples, self.spec.seed, epoch)
        return order[place * self.spec.batch_size : (place + 1) * self.spec.batch_size]

    def optimiser(self, head: nn.Module) -> torch.optim.AdamW:
        """AdamW; weights of linear layers decay, and biases, norms, query and positions do not."""
        decays = {m.weight for m in head.modules() if isinstance(m, nn.Linear)}
        others = [p for p in head.parameters() if p not in decays]
        groups = [
            {"params": [p for p in head.parameters() if p in decays]},
            {"params": others, "weight_decay": 0.0},
        ]
        decay = self.spec.weight_decay
        return torch.optim.AdamW(groups, self.spec.lr, BETAS, EPSILON, decay, foreach=False)


@lru_cache(1)
def _order(examples: int, seed: int, epoch: int) -> Int[Tensor, "examples"]:
    generator = torch.Generator().manual_seed(hashed_id(f"order of epoch {epoch}, seed {seed}"))
    return torch.randperm(examples, generator=generator)
