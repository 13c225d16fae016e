"""Trains a head on features: AdamW on the CPU or a GPU, resumable at any step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from asap.backbones.video_head import HeadConfig, build_head
from asap.errors import RequestError
from asap.measure.heads.checkpoints import Checkpoints
from asap.measure.heads.gradients import Gradients
from asap.measure.heads.recipe import Recipe


@dataclass(frozen=True)
class Curve:
    """What every step saw, before it changed the head: summed loss, right answers, examples."""

    recipe: Recipe
    steps: list[list[float]]

    @property
    def losses(self) -> list[float]:
        """The mean loss of every epoch."""
        return [math.fsum(one[0] for one in part) / _examples(part) for part in self._epochs()]

    @property
    def top1(self) -> list[float]:
        """The percentage of right answers in every epoch, while the head was changing."""
        return [100 * sum(one[1] for one in part) / _examples(part) for part in self._epochs()]

    def to_csv(self) -> str:
        """A line for every step; steps and epochs count from 1."""
        lines = ["step,epoch,rate,loss,top1"]
        for i, (loss, right, n) in enumerate(self.steps):
            epoch, rate = self.recipe.epoch(i) + 1, self.recipe.rate(i)
            lines.append(f"{i + 1},{epoch},{rate:.9g},{loss / n:.9g},{100 * right / n:.6g}")
        return "\n".join(lines) + "\n"

    def _epochs(self) -> list[list[list[float]]]:
        size = self.recipe.steps_of_epoch
        return [self.steps[i : i + size] for i in range(0, len(self.steps), size)]


def new_head(config: HeadConfig, seed: int) -> nn.Module:
    """A head with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_head(config)


def train(
    head: nn.Module,
    recipe: Recipe,
    gradients: Gradients,
    checkpoints: Checkpoints,
    save_seconds: float,
    advance: Callable[[int], object] = lambda steps: None,
) -> Curve:
    """Train the head in its place, from the last checkpoint if there is one.

    The weights after the last step are taken. On a CPU they are the same bits wherever the training
    was cut short; about `save_seconds` of work are lost to a kill. advance: gets the steps done.
    Raises RequestError if the loss stops being finite, or the disk does not take a checkpoint.
    """
    optimiser, parameters = recipe.optimiser(head), list(head.parameters())
    curve = checkpoints.restore(head, optimiser)
    advance(len(curve))
    saved = time.monotonic()
    for step in range(len(curve), recipe.steps):
        rate = recipe.rate(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        found = gradients(head, recipe.batch(step))
        if not math.isfinite(found.loss):
            raise RequestError(
                f"the head's loss is not finite after {step} of {recipe.steps} steps: lower "
                f"head.lr={recipe.spec.lr:g}"
            )
        for parameter, value in zip(parameters, found.values, strict=True):
            parameter.grad = value.to(parameter.device)
        optimiser.step()
        curve.append([found.loss, float(found.right), float(found.examples)])
        advance(1)
        if time.monotonic() - saved > save_seconds or step + 1 == recipe.steps:
            checkpoints.save(head, optimiser, curve)
            saved = time.monotonic()
    return Curve(recipe, curve)


def _examples(part: list[list[float]]) -> float:
    return sum(one[2] for one in part)
