"""One batch through the dense blocks, once for all cells."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asap.backbones.accepted import adapter_of
from asap.backbones.adapter import BackboneAdapter
from asap.core.packed import Segment, pack
from asap.engine.attention import Attended, Heads
from asap.engine.backend import Backend, backend_of
from asap.engine.checks import observed, reduced
from asap.engine.steps import ForwardState, attention_half, drawn_of, mlp_half, site_of
from asap.engine.trace import Trace
from asap.methods.base import Decision, Method, Needs, Observation, Sharing, Site
from asap.shared_prefix.answers import Answers
from asap.shared_prefix.rules import Reduction, StopRule
from asap.shared_prefix.suffixes import Exit, Suffixes

Kind = tuple[bool, bool]  # of suffixes that can run together: sizes in attention, averages
Want = tuple[tuple, int, Reduction, int]  # name of the exit, image, what asks, number of the block


class SharedPrefix:
    """Many settings of a method, and the dense baseline, in one pass over a batch.

    Raises ValueError for a method that cannot share or does not fit the backbone. A setting whose
    decisions raise is left out from then on; `failed` holds its exception. `backend`: how the
    device computes, None = as its type asks for.
    """

    def __init__(
        self, backbone: nn.Module, methods: Sequence[Method], backend: Backend | None = None
    ) -> None:
        self.backbone = backbone
        self.backend = backend or backend_of(next(backbone.parameters()).device, graphs=False)
        self.adapter = adapter_of(backbone)
        self.sharings: list[Sharing] = []
        for method in methods:
            sharing = method.sharing
            if sharing is None:
                raise ValueError(f"{type(method).__name__} cannot share a prefix")
            method.check(self.adapter.anatomy)
            self.sharings.append(sharing)
        self.needs = _joined([method.needs for method in methods])
        self.methods = list(methods)
        self.failed: dict[int, Exception] = {}

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"], image_ids: Sequence[int]) -> Answers:
        """The answers of every method for the images; `image_ids` name them for random draws."""
        if self.backbone.training:
            raise ValueError("the backbone is in training mode: call backbone.eval() first")
        one = _Batch(self, len(images))
        one.run(images, [int(i) for i in image_ids])
        return one.answers()


def _joined(needs: Sequence[Needs]) -> Needs:
    """The needs of all methods together; ValueError if they need different kinds of attention."""
    kinds = {need.attention for need in needs} - {None}
    if len(kinds) > 1:
        raise ValueError(f"these settings cannot share a prefix: they need {kinds}")
    keys, values = any(need.keys for need in needs), any(need.values for need in needs)
    tokens = any(need.tokens for need in needs)
    return Needs(next(iter(kinds), None), keys, values, tokens)


class _Batch:
    """The cells' common state over one batch."""

    def __init__(self, shared: SharedPrefix, images: int) -> None:
        self.adapter: BackboneAdapter = shared.adapter
        self.methods, self.failed, self.needs = shared.methods, shared.failed, shared.needs
        self.images = images
        self.backend = shared.backend
        self.suffixes = Suffixes(self.adapter, images, self.backend)
        self.unreduced: dict[int, Tensor] = {}
        self.rules: dict[Method, StopRule] = {}
        self.reductions: dict[Method, Reduction] = {}
        self.rule_of: dict[int, StopRule] = {}
        self.reduction_of: dict[int, Reduction] = {}
        self.state_of: dict[int, Hashable] = {}
        self.states: dict[Hashable, Any] = {}
        for cell, sharing in enumerate(shared.sharings):
            if cell not in self.failed:
                self._add(cell, sharing)

    def _add(self, cell: int, sharing: Sharing) -> None:
        rule, reduction = sharing.observer, sharing.reducer
        if rule not in self.rules:
            self.rules[rule] = StopRule.of(rule, self.images, self.adapter.anatomy)
        if reduction not in self.reductions:
            made = Reduction.of(reduction, self.images, self.adapter.anatomy)
            self.reductions[reduction] = made
        self.rule_of[cell], self.reduction_of[cell] = self.rules[rule], self.reductions[reduction]
        self.rules[rule].cells.add(cell)
        self.reductions[reduction].cells.add(cell)
        self.state_of[cell] = sharing.state

    def answers(self) -> Answers:
        return Answers(
            self.methods, self.failed, self.suffixes,
            self.rule_of, self.reduction_of, self.unreduced,
        )  # fmt: skip

    def run(self, images: Tensor, ids: list[int]) -> None:
        backend = self.backend
        batch = pack(self.adapter.embed(images), self.adapter.anatomy.prefix, backend.alone_below)
        trace = Trace.empty(0, 0, 0, 0)  # every rule has its own
        now = ForwardState(batch, trace, backend, image_ids=ids)
        late = any(r.method.position == "after_block" for r in self.reductions.values())
        for cell, state in self.state_of.items():
            if state not in self.states:
                start = self.methods[cell].start_shared
                self.states[state] = start(self.adapter.anatomy, self.images, batch.sizes)
        self._leave_after(0, now)
        for index, block in enumerate(self.adapter.blocks):
            if not self._thin(now):
                return
            eager = not block.attn.fused_attn
            heads, attended = attention_half(block, now, self.needs, False, eager)
            stopped = self._observe(index, now, heads, attended)
            self._reduce(index, now, heads, attended, stopped, "after_attention")
            if not late and not self._thin(now):
                return
            mlp_half(block, now)
            if late:
                self._reduce(index, now, heads, attended, stopped, "after_block")
            self._leave_after(index + 1, now)

    # ---- images that leave the prefix

    def _active(self) -> list[StopRule]:
        return [rule for rule in self.rules.values() if rule.cells - self.failed.keys()]

    def _thin(self, now: ForwardState) -> bool:
        """Drop the images that no rule waits for; returns True if any is left."""
        alive = torch.zeros(self.images, dtype=torch.bool)
        for rule in self._active():
            alive |= rule.alive
        kept = [i for i, image in enumerate(now.batch.images) if alive[image]]
        if len(kept) < len(now.batch.images):
            now.batch = now.batch.of(kept)
        return bool(kept)

    def _leave_after(self, number: int, now: ForwardState) -> None:
        """Run the rest, unreduced, for images that did not stop up to the last block of a rule.

        number: of the block just run; the rules are those for which it is the last.
        """
        rules = [rule for rule in self._active() if rule.last == number]
        if not rules:
            return
        leaving = torch.stack([rule.alive for rule in rules]).any(0)
        for rule in rules:
            rule.alive[:] = False
        places = [i for i, image in enumerate(now.batch.images) if leaving[image]]
        self.unreduced[number] = torch.zeros(self.images, dtype=torch.int64)
        if places:
            images = torch.tensor([now.batch.images[i] for i in places])
            numbers = self.suffixes.go_on(now.batch, places, number)
            self.unreduced[number][images] = torch.tensor(numbers)

    # ---- the two questions

    def _site(
        self, index: int, segment: Segment, now: ForwardState, heads: Heads, attended: Attended
    ) -> Site:
        """The site of a segment, still without the state of a setting."""
        shown = attended.shown.get(segment)
        return site_of(self.adapter, index, segment, now, self.needs, heads, shown)

    def _observe(
        self, index: int, now: ForwardState, heads: Heads, attended: Attended
    ) -> dict[Method, Bool[Tensor, "images"]]:
        """Ask every rule about the images; returns which of them stop in this block, by rule."""
        stopped = {rule: torch.zeros(self.images, dtype=torch.bool) for rule in self.rules}
        for segment in now.batch.segments:
            images, site = (
                torch.tensor(segment.images),
                self._site(index, segment, now, heads, attended),
            )
            for rule in self._active():
                if not rule.alive[images].any():
                    continue
                site = replace(site, state=self._state(rule.cells))
                seen = self._guarded(rule.cells, partial(_observed, rule.method, site))
                if seen is not None:
                    stopped[rule.method] |= rule.note(index, images, seen)
        return stopped

    def _reduce(
        self,
        index: int,
        now: ForwardState,
        heads: Heads,
        attended: Attended,
        stopped: dict[Method, Tensor],
        position: str,
    ) -> None:
        """Reduce the images that stop in this block, and run each distinct suffix once."""
        groups: dict[Kind, dict[tuple, Exit]] = {}
        wanted: dict[Kind, list[Want]] = {}
        sites: dict[tuple, Site] = {}  # of a segment and places in it
        for reduction in self.reductions.values():
            cells = reduction.cells - self.failed.keys()
            if reduction.method.position != position or not cells:
                continue
            leaving = torch.stack([stopped[self.rule_of[c].method] for c in cells]).any(0)
            for segment in now.batch.segments:
                places = leaving[torch.tensor(segment.images)].nonzero()[:, 0]
                if not len(places):
                    continue
                name = (segment, *places.tolist())
                if name not in sites:
                    site = self._site(index, segment, now, heads, attended)
                    sites[name] = site.of(places.to(site.images.device))
                drawn = self._drawn(reduction.method, sites[name])
                site = replace(sites[name], state=self._state(cells), drawn=drawn)
                ask = partial(_decided, reduction.method, site)
                decided = self._guarded(reduction.cells, ask)
                if decided is None:
                    continue
                images = torch.tensor(segment.images)[places]
                reduction.note(decided, images, index + 1)
                kind = (reduction.method.proportional_attention, decided.weight is not None)
                first = segment.first_row // segment.length
                exits = Exit.all_of(decided, [first + i for i in places.tolist()])
                for image, one in zip(images.tolist(), exits, strict=True):
                    groups.setdefault(kind, {}).setdefault(one.name, one)
                    wanted.setdefault(kind, []).append((one.name, image, reduction, index + 1))
        midway = position == "after_attention"
        for kind, distinct in groups.items():
            exits, block = list(distinct.values()), index if midway else index + 1
            numbers = self.suffixes.reduce(now.batch, exits, block, midway, kind[0])
            number_of = dict(zip(distinct, numbers, strict=True))
            for name, image, reduction, number in wanted[kind]:
                reduction.suffix[image, number] = number_of[name]

    def _drawn(self, method: Method, site: Site) -> Tensor | None:
        return drawn_of(method, site.anatomy, site.image_ids, site.tokens.device)

    def _state(self, cells: set[int]) -> Any:
        """The state of some cells, which is the same for all of them if they use it."""
        return self.states[self.state_of[min(cells)]]

    def _guarded(self, cells: set[int], ask: Callable[[], Any]) -> Any:
        """A setting's answer; if it raises, None, and its cells are marked as failed."""
        try:
            return ask()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # these cells fail, the others go on
            self.failed |= dict.fromkeys(cells - self.failed.keys(), error)
            return None


def _observed(method: Method, site: Site) -> Observation | None:
    with torch.autocast(site.tokens.device.type, enabled=False):  # decide in float32
        return observed(method, site)


def _decided(method: Method, site: Site) -> Decision | None:
    with torch.autocast(site.tokens.device.type, enabled=False):
        return reduced(method, site, None)
