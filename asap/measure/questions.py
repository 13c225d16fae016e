"""Questions through a vision-language model: the tower's rows, the projector, the decoder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.backbones.llava.anyres import AnyRes
from asap.backbones.llava.checkpoint import Llava
from asap.backbones.llava.prompt import PromptFrame
from asap.core.crops import NEWLINE, PictureRows, in_reading_order
from asap.core.rows import rowwise
from asap.data.base import Sample
from asap.engine.decoder import Decoder, Generated
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.engine.visual_rows import VisualRows, VisualTower
from asap.errors import one_line
from asap.methods import Method
from asap.spec.answer_spec import AnswerSpec
from asap.tasks.questions import Answer, CannotAnswer, Questions

log = logging.getLogger("asap")
_YES_AND_NO = (("Yes", "No"), ("yes", "no"))


@dataclass(frozen=True)
class Encoded:
    """The visual rows of a batch of images, see `VisualOutputs`."""

    rows: VisualRows
    held: Int[Tensor, "b patches"]
    encoder: "PictureEncoder"

    def of(self, sample: Sample, first: int) -> PictureRows:
        cut, how = self.encoder.anyres, self.encoder.how
        if cut is None:
            return PictureRows(self.rows.of(first), None, self.held[first])
        grid = cut.grid(*sample.extras["size"])
        images = range(first, first + 1 + grid.down * grid.across)
        rows = [self.rows.of(i) for i in images]
        held = self.held[images.start : images.stop]
        tower, placeless = self.encoder.tower, self.encoder.method.placeless(held.shape[1])
        return in_reading_order(rows, held, grid, how.crops, tower.by_patch, placeless)


class PictureEncoder:
    """A vision tower under a method, in the place of a model that classifies.

    how: the order of rows. anyres: what cut the pictures into crops; None: each is one image.
    """

    def __init__(self, model: ReducedViT, how: AnswerSpec, anyres: AnyRes | None = None) -> None:
        self.tower = VisualTower(model, how.order)
        self.how, self.anyres = how, anyres
        self.method: Method = model.method

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], image_ids: Sequence[int], return_trace: bool = True
    ) -> tuple[Encoded, Trace]:
        """The visual rows of each image, and its trace."""
        rows, trace, held = self.tower(images, image_ids)
        return Encoded(rows, held, self), trace


def visual_rows(
    projector: nn.Module, picture: PictureRows, newline: Float[Tensor, "dim"] | None = None
) -> Float[Tensor, "m dim"]:
    """The rows of a picture as a language model reads them: projected, in order, with newline rows
    where the order has some.
    """
    rows = rowwise(projector, picture.rows)
    if picture.order is None:
        return rows
    order = picture.order.to(rows.device)
    if newline is None or not (picture.order == NEWLINE).any():
        return rows[order]
    newline = newline[None].to(rows)
    return torch.cat([rows, newline])[order.where(order != NEWLINE, len(rows))]


@dataclass(frozen=True)
class LlavaAnswerer:
    """Answers by a LLaVA, whose language model may have a pruner; see `Answerer`."""

    llava: Llava
    decoder: Decoder
    how: AnswerSpec

    def visual(self, picture: PictureRows) -> Float[Tensor, "m dim"]:
        """The rows as the language model reads them."""
        return visual_rows(self.llava.projector, picture, self.llava.newline)

    @torch.no_grad()
    def answer(self, sample: Sample, picture: PictureRows) -> Answer:
        """The answer to `sample.extras["question"]`, greedily.

        Raises `CannotAnswer` where the prompt is longer than the model's positions, the frame's
        placeholder is in the question, the pruner lacks something, or memory runs out.
        """
        limit = self.how.max_new_tokens or sample.extras["max_new_tokens"]
        frame, pruner = self.llava.frame, self.decoder.pruner
        objects = None
        if pruner is not None and pruner.needs_objects:
            objects = object_rows(sample, picture.held, len(picture))
        try:
            prompt = frame.split(sample.extras["question"])
            found = self.decoder.generate(
                self.visual(picture), prompt.prefix, prompt.suffix, limit, frame.eos, objects
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            said = "the device is out of memory for this question"
            raise CannotAnswer(said, lasts=False) from None
        except ValueError as error:
            raise CannotAnswer(one_line(error)) from None
        text = len(prompt.prefix) + len(prompt.suffix)
        return self._answer(found, picture, text, frame.decode(found.ids))

    def _answer(self, found: Generated, picture: PictureRows, text: int, said: str) -> Answer:
        language = self.llava.language
        gap, yes_no = self._gaps(found.first)
        return Answer(
            text=said,
            ids=found.ids,
            cut=found.cut,
            finite=found.finite,
            visual_rows=len(picture),
            prompt_rows=text,
            tokens=found.rows,
            macs_projector=language.cost.projector(*picture.rows.shape),
            macs_backbone=found.macs_prefill,
            macs_method=found.macs_pruner,
            kv_rows=found.kv_rows,
            kv_bytes=language.cost.kv_bytes(found.rows, language.dtype.itemsize),
            gap=gap,
            yes_no_gap=yes_no,
            kept=found.visual,
        )

    def _gaps(self, first: Float[Tensor, "vocabulary"]) -> tuple[float, float]:
        """Highest logit minus the second, and that of yes minus that of no; NaN if not known."""
        best = first.topk(2).values
        gap = float(best[0] - best[1])
        if self._yes_and_no is None:
            return gap, float("nan")
        yes, no = self._yes_and_no
        return gap, float(first[yes] - first[no])

    @cached_property
    def _yes_and_no(self) -> tuple[int, int] | None:
        return yes_and_no(self.llava.frame)


def tell_other_prompt(task: Questions) -> None:
    """Warn, once in a process, where a benchmark is asked without LLaVA's opening sentence."""
    if task.benchmark is None or not isinstance(task.answerer, LlavaAnswerer):
        return
    if task.answerer.llava.frame.lacks_vicunas_sentence:
        _warn_other_prompt()


@cache
def _warn_other_prompt() -> None:
    log.warning(
        'the prompt lacks LLaVA\'s opening sentence ("A chat between a curious user ..."), so '
        "benchmarks may differ from published ones: docs/reproduce-llava.md, section 2, has the "
        "chat template for it"
    )


def yes_and_no(frame: PromptFrame) -> tuple[int, int] | None:
    """The first tokens of the two words, as the tokenizer has them; None if they are the same."""
    for words in _YES_AND_NO:
        parts = [frame.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        if all(parts) and parts[0][0] != parts[1][0]:
            return parts[0][0], parts[1][0]
    return None


def object_rows(
    sample: Sample, held: Int[Tensor, "patches"], rows: int
) -> Bool[Tensor, " rows"] | None:
    """Whether each visual row holds mostly object patches; None if the data do not say."""
    if sample.mask is None:
        return None
    sent = held >= 0
    patches = torch.bincount(held[sent], minlength=rows)
    on_object = torch.bincount(held[sent & sample.mask], minlength=rows)
    return 2 * on_object > patches
