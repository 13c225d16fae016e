"""The questions that are timed: read and tokenised beforehand, held on the device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from asap.backbones.llava.prompt import PromptFrame
from asap.data.base import DataSet, Sample, Subset, evenly
from asap.errors import RequestError
from asap.measure.question_latency import TimedQuestion
from asap.measure.ratios import quartiles
from asap.records.schema import Quartiles


@dataclass(frozen=True)
class Prepared:
    """Questions on the device. preparation_ms: milliseconds of the wall that a picture took to be
    read and transformed, and a prompt to be tokenised, which is no part of what is timed.
    """

    questions: tuple[TimedQuestion, ...]
    preparation_ms: dict[str, Quartiles]

    @property
    def pictures(self) -> int:
        return len({one.picture for one in self.questions})


def pictures_of(data: DataSet) -> Sequence[int]:
    """The number of each question's picture, without reading any. ValueError if it is not known."""
    if isinstance(data, Subset):
        whole = pictures_of(data.whole)
        return [whole[i] for i in data.positions]
    if (clusters := getattr(data, "clusters", None)) is None:
        raise ValueError(f"data set {data.name} does not tell which questions share a picture")
    return clusters


def chosen(clusters: Sequence[int], questions: int, pictures: int) -> list[int]:
    """Positions of at most `questions` questions about at most `pictures` pictures, evenly spaced.

    clusters: the picture of each question. Every picture has about equally many; they stand in the
    order of the questions.
    """
    by_picture: dict[int, list[int]] = {}
    for position, picture in enumerate(clusters):
        by_picture.setdefault(picture, []).append(position)
    groups = list(by_picture.values())
    groups = [groups[i] for i in evenly(len(groups), min(pictures, len(groups), questions))]
    share = [0] * len(groups)
    for _ in range(min(questions, sum(map(len, groups)))):
        room = [i for i, group in enumerate(groups) if share[i] < len(group)]
        share[min(room, key=lambda i: share[i])] += 1
    taken = zip(groups, share, strict=True)
    return [group[i] for group, count in taken for i in evenly(len(group), count)]


def prepared(
    data: DataSet,
    questions: int,
    pictures: int,
    frame: PromptFrame,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[int], object] = lambda questions: None,
) -> Prepared:
    """The questions that `chosen` names. Those whose picture cannot be read, or which have no
    prompt, are left out; RequestError if none is left.
    """
    found: list[TimedQuestion] = []
    reading, asking = [], []
    held: dict[int, torch.Tensor] = {}
    for position in chosen(pictures_of(data), questions, pictures):
        before = time.perf_counter()
        sample = data[position]
        middle = time.perf_counter()
        progress(1)
        if sample.inputs is None:
            continue
        try:
            prompt = frame.split(sample.extras["question"])
        except ValueError:
            continue
        asking.append(time.perf_counter() - middle)
        if sample.cluster not in held:
            reading.append(middle - before)
            held[sample.cluster] = sample.inputs.to(device, dtype)
        found.append(_on(device, sample, held[sample.cluster], prompt.prefix, prompt.suffix))
    if not found:
        raise RequestError(f"no question to time out of {len(data)}: none can be read and asked")
    times = {"picture": reading, "prompt": asking}
    return Prepared(
        tuple(found), {name: quartiles(1000 * np.array(took)) for name, took in times.items()}
    )


def _on(
    device: torch.device,
    sample: Sample,
    images: torch.Tensor,
    prefix: Sequence[int],
    suffix: Sequence[int],
) -> TimedQuestion:
    ids = [torch.tensor(part, device=device) for part in (prefix, suffix)]
    here = replace(sample, inputs=None)
    return TimedQuestion(here, images, tuple(sample.image_ids), ids[0], ids[1])
