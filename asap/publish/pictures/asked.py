"""One question under one row, for pictures: what was answered, and from which rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from asap.data.base import Sample
from asap.engine.trace import Trace
from asap.measure.questions import PictureEncoder
from asap.measure.session import Session
from asap.methods import Method
from asap.methods.language.base import Pruner
from asap.publish.pictures.panels import images_on_device
from asap.tasks.questions import Answer


@dataclass(frozen=True)
class Asked:
    """An answer, the trace of its picture's images, and the visual row that each patch of them
    ended in, -1: none.

    Rows count from 0 in the order in which the language model reads them.
    """

    answer: Answer
    trace: Trace
    held: Int[Tensor, "images patches"]

    @property
    def left(self) -> Int[Tensor, "patches"]:
        """`held` of the whole picture, and -1 too where the row is not left in the last layer."""
        kept = torch.tensor(self.answer.kept, dtype=self.held.dtype)
        return torch.where(torch.isin(self.held[0], kept), self.held[0], -1)

    @property
    def macs(self) -> int:
        """Of the tower, the projector, the language model at prefill, and both methods."""
        a = self.answer
        return int(self.trace.macs.sum()) + a.macs_projector + a.macs_backbone + a.macs_method


def asked(session: Session, method: Method, pruner: Pruner | None, sample: Sample) -> Asked:
    """A readable sample's question, answered under these methods. Raises `CannotAnswer`."""
    encoder = session.encoder(method)
    assert isinstance(encoder, PictureEncoder)
    rows, trace = encoder(images_on_device(session, sample), sample.image_ids)
    picture = rows.of(sample, 0)
    answer = session.answerer(pruner).answer(sample, picture)
    return Asked(answer, trace, picture.held.view(sample.n_images, -1))
