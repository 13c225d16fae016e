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
from asap.publish.pictures.panels import on_device
from asap.tasks.questions import Answer


@dataclass(frozen=True)
class Asked:
    """An answer, the trace of its picture, and the visual row that each patch ended in, -1: none.

    Rows count from 0 in the order in which the language model reads them.
    """

    answer: Answer
    trace: Trace
    held: Int[Tensor, "patches"]

    @property
    def left(self) -> Int[Tensor, "patches"]:
        """As `held`, and -1 too where the row is not left in the last layer."""
        kept = torch.tensor(self.answer.kept, dtype=self.held.dtype)
        return torch.where(torch.isin(self.held, kept), self.held, -1)

    @property
    def macs(self) -> int:
        """Of the tower, the projector, the language model at prefill, and both methods."""
        a = self.answer
        return int(self.trace.macs[0]) + a.macs_projector + a.macs_backbone + a.macs_method


def asked(session: Session, method: Method, pruner: Pruner | None, sample: Sample) -> Asked:
    """A readable sample's question, answered under these methods. Raises `CannotAnswer`."""
    encoder = session.encoder(method)
    assert isinstance(encoder, PictureEncoder)
    rows, trace = encoder(on_device(session, sample)[None], sample.image_ids)
    held = rows.held[0]
    answer = session.answerer(pruner).answer(sample, rows.of(0), held)
    return Asked(answer, trace, held)
