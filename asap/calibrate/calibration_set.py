"""The calibration images with a backbone, to measure the cost and accuracy of settings on them."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.calibrate.space_walk import Budget
from asap.data.base import DataSet, Sample
from asap.data.loading import loader
from asap.engine.backend import Backend
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.methods import Dense, Method
from asap.tasks.base import Task

log = logging.getLogger("asap")
FIRST = 32  # images before measuring a setting may end early
SURE = 4.0  # standard errors between the cost and the window at which measuring ends early
BEHIND = 2.0  # standard errors between the accuracy and the best at which measuring ends early
SLACK = 0.1  # points in addition, for the averaging of tokens, which `same_cost` leaves out


class Race:
    """The images that the most accurate setting so far classifies correctly, in the set's order."""

    def __init__(self) -> None:
        self.best: np.ndarray | None = None

    def is_lost(self, correct: np.ndarray) -> bool:
        """True if a setting is clearly less accurate on the same first images, by a paired test."""
        if self.best is None:
            return False
        best = self.best[: len(correct)]
        ahead, behind = int((correct & ~best).sum()), int((best & ~correct).sum())
        return behind - ahead > BEHIND * (ahead + behind) ** 0.5

    def finished(self, correct: np.ndarray) -> None:
        if self.best is None or correct.sum() > self.best.sum():
            self.best = correct


def _read(
    samples: Iterable[Sample], count: int
) -> tuple[Float[Tensor, "examples images 3 h w"], list[list[int]], list[Sample], list[Sample]]:
    """Images of the readable examples among `count`, the ids of these images, and the readable and
    the unreadable examples, without images.

    No second copy of the images is made.
    """
    images, ids, read, unread = torch.empty(0, 1, 3, 0, 0), [], [], []
    for s in samples:
        if s.inputs is None:
            unread.append(s)
            continue
        images = images if ids else s.inputs.new_empty(count, *s.inputs.shape)
        images[len(ids)] = s.inputs
        ids.append(s.image_ids)
        read.append(replace(s, inputs=None, extras={}))
    first = "".join(f"{s.source}: {s.error}" for s in unread[:1])
    if not ids:
        raise RequestError(
            f"none of the {count} calibration images can be read: {first}: check calibrate.path"
        )
    if unread:
        said = f"{len(unread)} of {count} calibration images cannot be read and are left out"
        log.warning("%s; the first: %s", said, first)
    return images[: len(ids)], ids, read, unread


class CalibrationSet:
    """The slice in memory, in a fixed random order, so that its first images stand for all.

    A sorted folder begins with its first classes. Images that cannot be read are left out;
    RequestError if none can be. `blind`: the labels are not looked at, and accuracies are NaN.
    Answers are scored by the `task`, as in the evaluation.
    `costs`: more images, on which costs are measured. `backend`: how the device computes, None = as
    its type asks for. `unread`: positions of the images left out.
    """

    def __init__(
        self,
        backbone: nn.Module,
        data: DataSet,
        batch_size: int,
        workers: int,
        device: torch.device,
        dtype: torch.dtype,
        task: Task,
        blind: bool = False,
        costs: "CalibrationSet | None" = None,
        backend: Backend | None = None,
    ) -> None:
        self.backbone, self.batch_size, self.costs = backbone, batch_size, costs
        self.device, self.dtype, self.task, self.blind = device, dtype, task, blind
        self.backend = backend
        order = np.random.default_rng(0).permutation(len(data)).tolist()
        samples = (s for batch in loader(data, order, batch_size, workers) for s in batch)
        self.images, self.ids, self.samples, unread = _read(samples, len(order))
        self.unread = sorted(s.index for s in unread)
        dense = ReducedViT(backbone, Dense(), backend=self.backend)
        macs, correct = self._run(dense, 0, 1 if blind else len(self))
        self.dense_macs = float(macs.mean())
        self.dense_top1 = self._top1(correct)

    def __len__(self) -> int:
        return len(self.ids)

    def measure(
        self,
        method: Method,
        budget: Budget | None = None,
        race: Race | None = None,
        macs_pct: float | None = None,
    ) -> tuple[float, float | None, int]:
        """Mean MACs against dense in %, accuracy in %, and the number of images measured.

        Ends early, without an accuracy, once the cost is clearly outside the window of `budget`, or
        the accuracy is clearly behind the best of `race`. `macs_pct`: the cost, where it is known.
        """
        if macs_pct is None and self.costs is not None and not method.same_cost:
            macs_pct, _, seen = self.costs.measure(method, budget)
            if seen < len(self.costs):
                return macs_pct, None, seen
        if macs_pct is not None and budget is not None and not budget.holds(macs_pct):
            return macs_pct, None, len(self.costs or self)
        return self._measure(method, budget, race, macs_pct)

    def _measure(
        self, method: Method, budget: Budget | None, race: Race | None, known: float | None
    ) -> tuple[float, float | None, int]:
        model = ReducedViT(self.backbone, method, backend=self.backend)
        saved, correct, cost = np.empty(0), np.empty(0, dtype=bool), float("nan")
        for start, stop in self._steps(1 if method.same_cost else FIRST):
            macs, right = self._run(model, start, stop)
            saved = np.concatenate([saved, 100 * (macs / self.dense_macs - 1)])
            correct = np.concatenate([correct, right])
            cost = float(saved.mean()) if known is None else known
            outside = known is None and self._outside(saved, method.same_cost, budget)
            if stop < len(self) and (outside or (race is not None and race.is_lost(correct))):
                return cost, None, stop
        if race is not None and (budget is None or budget.holds(cost)):
            race.finished(correct)
        return cost, self._top1(correct), len(self)

    def look(self, method: Method, tick: Callable[[int], object]) -> None:
        """Run all images on which costs are measured with a method that records what it sees."""
        if self.costs is not None:
            return self.costs.look(method, tick)
        model = ReducedViT(self.backbone, method, backend=self.backend)
        for start, stop in self._steps(self.batch_size):
            self._run(model, start, stop)
            tick(stop - start)

    def _top1(self, correct: np.ndarray) -> float:
        return float("nan") if self.blind else 100 * float(correct.mean())

    def _steps(self, first: int) -> Iterator[tuple[int, int]]:
        start, stop = 0, min(first, len(self))
        while start < stop:
            yield start, stop
            start, stop = stop, min(stop + self.batch_size, len(self))

    def _outside(self, saved: np.ndarray, same_cost: bool, budget: Budget | None) -> bool:
        """True if the first images show clearly that the mean of all is outside the window."""
        if budget is None:
            return False
        error = 0.0 if same_cost else SURE * float(saved.std()) / len(saved) ** 0.5
        low, high = budget.macs_pct - budget.window, budget.macs_pct
        return not low - error - SLACK <= saved.mean() <= high + error + SLACK

    def _run(self, model: ReducedViT, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """MACs of each example, and if it is answered right; in batches that fit in memory."""
        parts = range(start, stop, self.batch_size)
        done = [self._batch(model, slice(i, min(i + self.batch_size, stop))) for i in parts]
        macs, correct = zip(*done, strict=True)
        return np.concatenate(macs), np.concatenate(correct)

    def _batch(self, model: ReducedViT, part: slice) -> tuple[np.ndarray, np.ndarray]:
        images: Tensor = self.images[part].flatten(0, 1).to(self.device, self.dtype)
        ids, count = [one for own in self.ids[part] for one in own], part.stop - part.start
        try:
            outputs, trace = model(images, ids, return_trace=True)
        except torch.OutOfMemoryError:
            if count == 1:
                raise
            del images
            torch.cuda.empty_cache()
            self.batch_size = (count + 1) // 2
            return self._run(model, part.start, part.stop)
        macs = trace.macs.view(count, -1).sum(1).numpy()
        if self.blind:
            return macs, np.zeros(count, dtype=bool)
        return macs, self.task.right(self.samples[part], outputs.cpu()).numpy()
