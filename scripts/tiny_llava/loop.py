"""A training loop that goes on where it was killed, with the bits of one that was not."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True)
class Schedule:
    """AdamW with one cycle of the rate. Scenes are shuffled anew in every epoch."""

    steps: int
    batch: int  # scenes
    rate: float
    decay: float = 0.05  # of matrices; vectors have none
    warm_up: float = 0.1  # share of the steps
    measured: int = 250  # steps between two measurements for the log


@cache
def _shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def batch_of(step: int, n: int, size: int, seed: int) -> np.ndarray:
    """Which of `n` scenes step number `step` sees, (size,) int, in rising order."""
    epoch, place = divmod(step, n // size)
    return np.sort(_shuffled(n, seed, epoch)[place * size : (place + 1) * size])


def trained(
    name: str,
    module: nn.Module,
    loss: Callable[[int, np.ndarray], Tensor],
    n: int,
    schedule: Schedule,
    measure: Callable[[], dict[str, float]],
    file: Path,
    seed: int = 0,
    save_seconds: float = 120,
) -> list[dict[str, Any]]:
    """Train `module` in place, and return what was measured on the way.

    `loss(step, scenes)` is the loss of a step on scenes (batch,) of `n`, and on nothing else:
    a training that is continued from the checkpoint in `file` ends alike.
    """
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": schedule.decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=schedule.rate,
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.rate, total_steps=schedule.steps, pct_start=schedule.warm_up
    )
    parts = {"module": module, "optimizer": optimizer, "rates": rates}
    step, log = 0, []
    if file.exists():
        state = torch.load(file, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
        step, log = state["step"], state["log"]
    saved = time.monotonic()
    bar = tqdm(total=schedule.steps, initial=step, desc=name, unit="step", mininterval=5)
    while step < schedule.steps:
        module.train()
        value = loss(step, batch_of(step, n, schedule.batch, seed))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rates.step()
        step += 1
        bar.update()
        if step % schedule.measured == 0 or step == schedule.steps:
            module.eval()
            log.append({"step": step, "loss": round(value.item(), 4)} | measure())
            bar.write(f"{name}: {log[-1]}")
        if step == schedule.steps or time.monotonic() - saved > save_seconds:
            state = {key: part.state_dict() for key, part in parts.items()}
            torch.save(state | {"step": step, "log": log}, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)
            saved = time.monotonic()
    bar.close()
    module.eval()
    return log
