"""A forward pass in which the device decides, with kernels and recorded work.

It does what the executor does, in another way: all images stay one site, in their order; where each
image's rows lie is a tensor (`offsets`), and a mask says which images are still watched. So a pass
with a fixed schedule never involves the host and is one recording.

Where the number of tokens depends on the image, a stage ends with the plan of the regrouping and
the number of rows on its way to the host. Projection, regrouping and norm need no number and run
meanwhile; then the host reads, and launches the next stage for as many rows, rounded up to a
bucket, so that few recordings are made. Rows behind the last one are computed with and never used.

A decision that cannot be recorded is made step by step (`stepwise.py`) between two recorded stages.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.core.rows import in_chunks
from asap.engine.backend import Backend
from asap.engine.device.decisions import note_unrecordable
from asap.engine.device.flow import Layout, Question, Stop
from asap.engine.device.memory import Memory
from asap.engine.device.stages import End, Stages
from asap.engine.device.stepwise import decide_now
from asap.engine.graphs import Graphs, Unrecordable
from asap.engine.host import Ahead
from asap.engine.kernels.launch import next_power_of_2
from asap.engine.steps import Classified
from asap.methods.base import Method

T = TypeVar("T")
BUCKETS = 128  # numbers of rows that are told apart, about
FEWEST = 64  # rows of a bucket at least: products are cut into tiles of so many rows anyway
NEAR = 64  # lengths of the longest image are told apart by so many tokens


class DevicePass:
    """Passes over batches of one shape, with their memory and recordings.

    images: how many a batch has. like: gives dtype and device of the tokens. `decisions.fits` says
    for which methods there is one.
    """

    def __init__(
        self, adapter: BackboneAdapter, method: Method, backend: Backend, images: int, like: Tensor
    ) -> None:
        self.method, self.backend, self.images = method, backend, images
        self.anatomy = adapter.anatomy
        self.graphs = None if backend.recorder is None else Graphs(backend.recorder)
        self.stages = Stages(adapter, method, backend, images, like, self._is_recording)
        self.ahead = Ahead(self.memory.plans[0].counts)
        self.like = like
        rows = images * self.anatomy.tokens
        self.bucket = next_power_of_2(rows // BUCKETS, FEWEST)

    @property
    def memory(self) -> Memory:
        return self.stages.memory

    def __call__(
        self,
        images: Float[Tensor, "b 3 h w"],
        drawn: Tensor | None,
        image_ids: list[int] | None = None,
    ) -> Classified:
        """Logits and trace, which the next call overwrites."""
        try:
            return self._pass(images, drawn, image_ids)
        except Unrecordable as reason:
            note_unrecordable(self.method, str(reason))
            self._start_again()
            return self._pass(images, drawn, image_ids)

    def _start_again(self) -> None:
        """With other stages: decisions are made step by step from now on."""
        adapter, recording = self.stages.adapter, self._is_recording
        self.graphs = None if self.graphs is None else Graphs(self.graphs.recorder)
        self.stages = Stages(adapter, self.method, self.backend, self.images, self.like, recording)

    def _pass(
        self, images: Tensor, drawn: Tensor | None, image_ids: list[int] | None
    ) -> Classified:
        stages = self.stages
        stages.draw(drawn)
        if stages.step_by_step:
            stages.state = self.method.start(self.anatomy, self.images, self.memory.ones)
        found = self._run("start", stages.start, images)
        while not isinstance(found, Classified):
            found = self._after(found, image_ids)
        return found

    def _after(self, end: End, image_ids: list[int] | None) -> End | Classified:
        """Regroup, and go on with the rows that are left.

        Where the host does not know how many these are, it reads that while they are regrouped.
        """
        stages, layout = self.stages, None
        if isinstance(end, Question):
            asked = replace(stages.asked, image_ids=image_ids)
            planned = decide_now(end, asked, self.backend)
            stop, layout = stages.stop(end.block, end.layout, planned, end.settled), planned.after
        else:
            stop = end
        if layout is None:
            self.ahead.send(self.memory.plans[stop.layout.side ^ 1].counts)
        self._run(("regroup", stop), lambda: stages.regroup(stop))
        after = self._layout_after(stop, self.ahead.receive()) if layout is None else layout
        return self._run(("rest", stop.block, after), lambda: stages.rest(stop.block, after))

    def _is_recording(self) -> bool:
        return self.graphs is not None and self.graphs.recording

    def _run(self, key: Any, work: Callable[..., T], *inputs: Tensor) -> T:
        with in_chunks(self.backend.strict):
            return work(*inputs) if self.graphs is None else self.graphs.run(key, work, *inputs)

    def _layout_after(self, stop: Stop, counts: list[int]) -> Layout:
        """From total rows, images watched, tokens of the longest image and images reduced."""
        total, watching, longest, reduced = counts
        side = stop.layout.side ^ 1
        if not reduced:
            return replace(stop.layout, side=side)
        rows = min(-(-total // self.bucket) * self.bucket, self.images * self.anatomy.tokens)
        near = min(-(-longest // NEAR) * NEAR, self.anatomy.tokens)
        merged = stop.layout.merged or not self.stages.inside
        return Layout(rows, near, None, watching > 0, merged, side)
