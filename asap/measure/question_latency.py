"""How long a vision-language model takes for a question, span by span, all candidates in turn.

A question is two passes of the language model whatever the model says: the prompt, then one token,
as for an answer of one token and its end. Pictures and ids are on the device beforehand. Every
candidate answers a question before the next one comes, in shuffled order, one at a time.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.crops import PictureRows
from asap.data.base import Sample
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.measure.device import Elapsed, gauge, measuring_alone
from asap.measure.questions import PictureEncoder
from asap.measure.resources import peak_memory
from asap.measure.spans import Spans
from asap.measure.throughput import require_recorded
from asap.measure.timing import Gauge, Lap

SPANS = ("tower", "projector", "prefill", "decode")  # between the marks, in order
FIRST_TOKEN, TOTAL = "first_token", "total"  # the first three, and all of them
PASSES = 2  # of every picture before timing: the engine records a piece of work in its second call


@dataclass(frozen=True)
class TimedQuestion:
    """A question on the device: the images of its picture, and the ids around them.

    sample: without its images.
    """

    sample: Sample
    images: Float[Tensor, "images 3 h w"]
    image_ids: tuple[int, ...]
    prefix: Int[Tensor, "before"]
    suffix: Int[Tensor, "behind"]

    @property
    def picture(self) -> int:
        """Questions about one picture have the same number."""
        return self.sample.cluster


@dataclass(frozen=True)
class Asked:
    """One question to one candidate. seconds: by span of `SPANS`; the rest as in `Answer`.

    MACs are of this question: of the tower (all images of the picture), of the method there, of the
    projector, of the language model up to the first logits, and of its pruner.
    """

    picture: int
    seconds: Mapping[str, float]
    visual_rows: int
    prompt_rows: int
    layer_rows: tuple[int, ...]
    stops: tuple[int, ...]  # the block in which each image stopped, from 1; 0: never
    macs_tower: int
    macs_vision_method: int
    macs_projector: int
    macs_prefill: int
    macs_language_method: int
    condition: Mapping[str, float]  # of the device, at the end

    @property
    def times(self) -> dict[str, float]:
        """Seconds of each span, of the first token and of the whole."""
        first = sum(self.seconds[name] for name in SPANS[:3])
        return {**self.seconds, FIRST_TOKEN: first, TOTAL: sum(self.seconds.values())}

    @property
    def lap(self) -> Lap:
        """The question as a round of throughput, to judge the device's clock by."""
        return Lap(1, Elapsed(self.times[TOTAL], self.times[TOTAL]), dict(self.condition))


@dataclass(frozen=True)
class Candidate:
    """A vision-language model under a method in each stage. visual: makes the tower's rows of a
    picture those that the language model reads.
    """

    encoder: PictureEncoder
    visual: Callable[[PictureRows], Tensor]
    decoder: Decoder

    @property
    def tower(self) -> ReducedViT:
        return self.encoder.tower.model

    def ask(self, question: TimedQuestion, spans: Spans, gauge: Gauge = dict) -> Asked:
        """Time one question. No cache of it is left behind."""
        language = self.decoder.language
        spans.start()
        encoded, trace = self.encoder(question.images, question.image_ids)
        spans.mark()
        picture = encoded.of(question.sample, 0)
        visual = self.visual(picture)
        spans.mark()
        found = self.decoder.prefill(visual, question.prefix, question.suffix, room=1)
        spans.mark()
        self.decoder.step(found, found.logits.argmax())
        spans.mark()
        return Asked(
            picture=question.picture,
            seconds=dict(zip(SPANS, spans.seconds(), strict=True)),
            visual_rows=len(visual),
            prompt_rows=len(question.prefix) + len(question.suffix),
            layer_rows=found.rows,
            stops=tuple(trace.stop_block.tolist()),
            macs_tower=int(trace.macs_backbone.sum()),
            macs_vision_method=int(trace.macs_method.sum()),
            macs_projector=language.cost.projector(*picture.rows.shape),
            macs_prefill=found.macs,
            macs_language_method=found.macs_pruner,
            condition=gauge(),
        )


def peaks(
    candidates: Mapping[str, Candidate], question: TimedQuestion, spans: Spans
) -> dict[str, int | None]:
    """Bytes that each candidate holds at most beside the weights and the pictures in its first two
    calls, which record CUDA graphs where the engine has some; None where nothing tells it.
    """
    device = question.images.device

    def twice(candidate: Candidate) -> Callable[[], object]:
        return lambda: [candidate.ask(question, spans) for _ in range(PASSES)]

    with torch.inference_mode():
        return {name: peak_memory(device, twice(one)) for name, one in candidates.items()}


def ask_all(
    candidates: Mapping[str, Candidate],
    questions: Sequence[TimedQuestion],
    warmup: int,
    spans: Spans,
    seed: int = 0,
    progress: Callable[[int], object] = lambda questions: None,
) -> dict[str, list[Asked]]:
    """Every question to every candidate, alone on the device: what each took, question by question.

    warmup: so many questions come first and do not count. `progress` is called with 1 for each
    question. On CUDA every picture runs through every tower before, so that the engine has recorded
    all the work that it can; RuntimeError if a piece could not be recorded.
    """
    device = questions[0].images.device
    read = gauge(device)
    found: dict[str, list[Asked]] = {name: [] for name in candidates}
    order, shuffled = list(candidates), random.Random(seed)
    with measuring_alone(device), torch.inference_mode():
        if device.type == "cuda":
            _record(candidates, questions)
        for number in range(-warmup, len(questions)):
            shuffled.shuffle(order)
            for name in order:
                asked = candidates[name].ask(questions[number % len(questions)], spans, read)
                if number >= 0:
                    found[name].append(asked)
            progress(1)
    require_recorded({name: one.tower for name, one in candidates.items()})
    return found


def _record(candidates: Mapping[str, Candidate], questions: Sequence[TimedQuestion]) -> None:
    pictures = {one.picture: one for one in questions}
    for candidate in candidates.values():
        for one in (*pictures.values(),) * PASSES:
            candidate.encoder(one.images, one.image_ids)
