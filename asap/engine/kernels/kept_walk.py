"""The lazy walk of a batch by kernels, in fixed memory, with decisions around a sink in one launch.

What `asap.methods.asap.walk.KeptWalk` does by torch's operations: see there.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.engine.kernels.sink import SinkReduction, SinkRule, sink_reduction
from asap.engine.kernels.split_matrix import SplitMatrix, step_matrix
from asap.engine.kernels.walk import step_vectors
from asap.methods.asap.options import AsapOptions
from asap.methods.asap.walk import KeptVectors
from asap.methods.base import Decision


@dataclass
class KernelWalk(KeptVectors):
    """Column mass, class row and P of all images, which go on in every block while watched.

    `matrix_held` is None until the first block shows in which precision the maps come, and where no
    P is needed. P is exact to 22 bits beside float16 maps.
    """

    with_matrix: bool
    matrix_held: SplitMatrix | None = None
    room: dict[bool, SinkReduction] = field(default_factory=dict)  # of decisions, by pooling

    def restart(self) -> None:
        """Nothing to do: the first block overwrites vectors and P."""

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        step = {"watched": watched, "first": block == 0}
        step_vectors(self.vectors, attention, self.alpha, **step)
        if self.with_matrix:
            if self.matrix_held is None:
                with torch.inference_mode(False):
                    size = self.vectors.shape[0], self.vectors.shape[2]
                    self.matrix_held = SplitMatrix.empty(*size, attention)
            step_matrix(self.matrix_held, attention, self.alpha, **step)
        self.block = block
        return 2 * attention.shape[-1] ** 2

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        assert self.matrix_held is not None
        return self.matrix_held.dense(), self.matrix_macs

    def around_sink(
        self, options: AsapOptions, prefix: int, chosen: Bool[Tensor, "b"] | None
    ) -> Decision:
        assert self.matrix_held is not None
        rule = SinkRule(
            anchor=options.anchor,
            clusters=int(options.clusters),
            background=options.background,
            pool=options.pool,
            binning=options.binning,
            normalise=options.normalise,
            weights=options.weights,
            distance_columns=options.distance_columns,
            temperature=options.temperature,
        )
        if rule.pool not in self.room:
            size = len(self.vectors), self.vectors.shape[2], rule.pool, self.vectors.device
            with torch.inference_mode(False):
                self.room[rule.pool] = SinkReduction.empty(*size)
        room = self.room[rule.pool]
        done = sink_reduction(rule, self.vectors, self.matrix_held, prefix, None, chosen, room)
        found = {"sink": done.anchor, "margin_sink": done.lead, "margin_bin": done.margin}
        return Decision(done.target, done.left, done.weight, True, self.matrix_macs, found)


def kernel_walk(
    alpha: float, with_matrix: bool, images: int, tokens: int, like: Tensor
) -> KernelWalk:
    """The walk of a batch; `like` gives dtype and device of the vectors."""
    return KernelWalk(alpha, like.new_zeros(images, 2, tokens), with_matrix)
