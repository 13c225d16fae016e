"""The gradient of a batch, by one process or by parts: every process computes its share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from asap.measure.heads.features import Features


@dataclass(frozen=True)
class Gradient:
    """Sums over some examples of a batch: their gradient, loss, and how many are right."""

    values: tuple[Float[Tensor, "..."], ...]  # by parameter
    loss: float
    right: int
    examples: int

    @classmethod
    def sum(cls, parts: Sequence["Gradient"]) -> "Gradient":
        """The sum of parts in their order, gradients in float64; a single part is itself."""
        if len(parts) == 1:
            return parts[0]
        totals = [
            sum(p.double() for p in same) for same in zip(*(p.values for p in parts), strict=True)
        ]
        kinds = [value.dtype for value in parts[0].values]
        return cls(
            tuple(torch.as_tensor(t).to(kind) for t, kind in zip(totals, kinds, strict=True)),
            sum(part.loss for part in parts),
            sum(part.right for part in parts),
            sum(part.examples for part in parts),
        )


Gradients = Callable[[nn.Module, Int[Tensor, "b"]], Gradient]  # of a batch, by its examples


def gradient_of(
    head: nn.Module,
    features: Float[Tensor, "b frames width"],
    labels: Int[Tensor, "b"],
    smoothing: float,
    of: int,
) -> Gradient:
    """The gradient of some examples' share in the mean loss of a batch of `of` examples.

    The loss is the cross-entropy with smoothed labels (Szegedy et al., 2016): each label has
    1 - smoothing, and all classes share the rest. `loss` is the sum, not divided by `of`.
    """
    head.zero_grad(set_to_none=False)
    parameters = list(head.parameters())
    if not len(labels):
        return Gradient(tuple(torch.zeros_like(p).cpu() for p in parameters), 0.0, 0, 0)
    logits = head(features)
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    values = torch.autograd.grad(loss / of, parameters)
    right = int((logits.detach().argmax(1) == labels).sum())
    return Gradient(tuple(v.detach() for v in values), float(loss.detach()), right, len(labels))


@dataclass(frozen=True)
class Alone:
    """Computes gradients in this process. The examples are numbers of views."""

    features: Features
    smoothing: float
    device: torch.device

    @cached_property
    def labels(self) -> Int[Tensor, "views"]:
        return self.features.labels

    def __call__(
        self, head: nn.Module, part: Int[Tensor, "part"], of: int | None = None
    ) -> Gradient:
        """The gradient of a part of a batch of `of` examples; None: it is the whole batch."""
        views = self.features.views(part.tolist()).to(self.device)
        labels = self.labels[part].to(self.device)
        return gradient_of(head, views, labels, self.smoothing, len(part) if of is None else of)
