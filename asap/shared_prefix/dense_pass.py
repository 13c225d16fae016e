"""One batch through the dense blocks, once for all cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.backbones.accepted import trunk_of
from asap.backbones.adapter import Trunk
from asap.core.packed import Run, pack
from asap.engine.attention import Attended, Heads
from asap.engine.steps import Pass, attention_half, mlp_half, site_of
from asap.engine.trace import Trace
from asap.methods.asap import Asap
from asap.methods.asap.walk import Walk
from asap.methods.base import Attention, Decision, Method, Needs, Site
from asap.shared_prefix.answers import Answers
from asap.shared_prefix.cells import Cut, Rule, new_cut, new_rule
from asap.shared_prefix.growing_walk import shared_walk
from asap.shared_prefix.rules import cut_rule, shareable, stop_rule
from asap.shared_prefix.suffixes import Leaving, Rests

WATCHED = Needs(Attention("all", "mean"))
Place = tuple[int, Cut, int]  # image, what becomes of it, number of the block


class SharedTrunk:
    """Many settings of ASAP, and the dense baseline, in one pass over a batch.

    Raises ValueError for a method that cannot share or does not fit the backbone. A setting whose
    decisions raise is left out from then on; `failed` holds its exception.
    """

    def __init__(self, backbone: nn.Module, methods: Sequence[Method]) -> None:
        self.backbone = backbone
        self.trunk = trunk_of(backbone)
        for method in methods:
            if not shareable(method):
                raise ValueError(f"{type(method).__name__} cannot share a trunk")
            method.check(self.trunk.anatomy)
        self.methods = list(methods)
        self.failed: dict[int, Exception] = {}

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"], image_ids: Sequence[int]) -> Answers:
        """What every method makes of the images, which `image_ids` name for random draws."""
        if self.backbone.training:
            raise ValueError("the backbone is in training mode: call backbone.eval() first")
        one = _Batch(self.trunk, self.methods, self.failed, len(images))
        one.run(images, [int(i) for i in image_ids])
        return one.answers()


class _Batch:
    """The cells' common state over one batch."""

    def __init__(
        self, trunk: Trunk, methods: list[Method], failed: dict[int, Exception], images: int
    ) -> None:
        self.trunk, self.methods, self.failed, self.images = trunk, methods, failed, images
        self.rests = Rests(trunk, images)
        self.left: dict[int, Tensor] = {}
        self.rules: dict[Asap, Rule] = {}
        self.cuts: dict[Asap, Cut] = {}
        self.rule_of: dict[int, Rule] = {}
        self.cut_of: dict[int, Cut] = {}
        self.walks: dict[tuple[str, float], Walk] = {}
        anatomy = trunk.anatomy
        for cell, method in enumerate(methods):
            if not isinstance(method, Asap) or cell in failed:
                continue
            rule, cut = stop_rule(method, anatomy.depth), cut_rule(method)
            if rule not in self.rules:
                self.rules[rule] = new_rule(rule, images, anatomy)
            if cut not in self.cuts:
                self.cuts[cut] = new_cut(cut, images, anatomy)
            self.rule_of[cell], self.cut_of[cell] = self.rules[rule], self.cuts[cut]
            self.rules[rule].cells.add(cell)
            self.cuts[cut].cells.add(cell)

    def answers(self) -> Answers:
        return Answers(
            self.methods, self.failed, self.rests, self.rule_of, self.cut_of, self.left, self.images
        )

    def run(self, images: Tensor, ids: list[int]) -> None:
        batch = pack(self.trunk.embed(images))
        trace = Trace.empty(0, 0, 0, 0)  # every rule has its own
        now = Pass(batch, trace, None, ids, list(batch.runs()))
        late = any(cut.method.position == "after_block" for cut in self.cuts.values())
        dense = any(not isinstance(method, Asap) for method in self.methods)
        if dense:
            self._leave(0, now, torch.ones(self.images, dtype=torch.bool))
        self._start(now)
        for index, block in enumerate(self.trunk.blocks):
            if not self._thin(now):
                return
            heads, attended = attention_half(block, now, WATCHED, False, eager=True)
            stopped = self._look(index, now, attended)
            self._reduce(index, now, heads, attended, stopped, "after_attention")
            if not late and not self._thin(now):
                return
            mlp_half(block, now)
            if late:
                self._reduce(index, now, heads, attended, stopped, "after_block")
            self._leave_after(index + 1, now)

    # ---- who is where

    def _start(self, now: Pass) -> None:
        like, tokens = now.batch.sizes, self.trunk.anatomy.tokens
        for order, alpha in {_walk_key(method) for method in (*self.rules, *self.cuts)}:
            self.walks[order, alpha] = shared_walk(order, alpha, self.images, tokens, like)

    def _thin(self, now: Pass) -> bool:
        """Drop the images that no rule waits for; whether any is left."""
        alive = torch.zeros(self.images, dtype=torch.bool)
        for rule in self._active():
            alive |= rule.alive
        batch = now.batch
        kept = [i for i, image in enumerate(batch.images) if alive[image]]
        if len(kept) == len(batch.images):
            return bool(kept)
        tokens = self.trunk.anatomy.tokens
        index = torch.tensor(kept, dtype=torch.int64, device=batch.rows.device)
        now.batch = replace(
            batch,
            rows=batch.rows.view(-1, tokens, batch.rows.shape[1])[index].flatten(0, 1),
            sizes=batch.sizes.view(-1, tokens)[index].flatten(),
            lengths=(tokens,) * len(kept),
            images=tuple(batch.images[i] for i in kept),
            watched=len(kept),
        )
        now.runs = list(now.batch.runs())
        return bool(kept)

    def _active(self) -> list[Rule]:
        return [rule for rule in self.rules.values() if rule.cells - self.failed.keys()]

    def _leave_after(self, number: int, now: Pass) -> None:
        """Images that did not stop in block `number`, the last one of some rules."""
        rules = [rule for rule in self._active() if rule.last == number]
        if rules:
            leaving = torch.stack([rule.alive for rule in rules]).any(0)
            for rule in rules:
                rule.alive[:] = False
            self._leave(number, now, leaving)

    def _leave(self, number: int, now: Pass, leaving: Tensor) -> None:
        """Some images leave unreduced after block `number`."""
        places = [i for i, image in enumerate(now.batch.images) if leaving[image]]
        self.left[number] = torch.zeros(self.images, dtype=torch.int64)
        if places:
            numbers = self.rests.leave(now.batch, places, number)
            images = torch.tensor([now.batch.images[i] for i in places])
            self.left[number][images] = torch.tensor(numbers)

    # ---- decisions

    def _look(self, index: int, now: Pass, attended: Attended) -> dict[Asap, Tensor]:
        """Advance the walks and test every rule; which images stop under each."""
        depth, prefix = self.trunk.anatomy.depth, self.trunk.anatomy.prefix
        stopped = {m: torch.zeros(self.images, dtype=torch.bool) for m in self.rules}
        for run in now.runs:
            images = torch.tensor(run.images, device=now.batch.rows.device)
            steps = {
                key: walk.advance(attended.shown[run], images, index)
                for key, walk in self.walks.items()
            }
            masses: dict[tuple, Tensor] = {}
            for rule in self._active():
                key = (*_walk_key(rule.method), rule.method.columns)
                if key not in masses:
                    walk = self.walks[key[:2]]
                    masses[key] = rule.method.largest_mass(walk, images, prefix).cpu()
                macs = steps[key[:2]]
                look = partial(rule.look, index, run, masses[key], macs, depth)
                found = self._guarded(rule.cells, look)
                if found is not None:
                    stopped[rule.method] |= found
        return stopped

    def _reduce(
        self,
        index: int,
        now: Pass,
        heads: Heads,
        attended: Attended,
        stopped: dict[Asap, Tensor],
        position: str,
    ) -> None:
        """Cut the images that stop in this block, and run each distinct outcome once."""
        groups: dict[tuple[bool, bool], dict[tuple, Leaving]] = {}
        wanted: dict[tuple[bool, bool], list[tuple[tuple, Place]]] = {}
        for cut in self.cuts.values():
            alive = cut.cells - self.failed.keys()
            if cut.method.position != position or not alive:
                continue
            leaving = torch.stack([stopped[self.rule_of[c].method] for c in alive]).any(0)
            if not leaving.any():
                continue
            kind = (cut.method.proportional_attention, cut.method.pool)
            for run in now.runs:
                decided = self._ask(index, run, now, heads, attended, cut, leaving)
                if decided is None:
                    continue
                here = leaving[torch.tensor(run.images)].nonzero()[:, 0].tolist()
                for place, image, one in _split(decided, run, here):
                    name = (place, one.target.tobytes(), one.weight.tobytes())
                    groups.setdefault(kind, {}).setdefault(name, one)
                    wanted.setdefault(kind, []).append((name, (image, cut, index + 1)))
        midway = position == "after_attention"
        block = index if midway else index + 1
        for kind, distinct in groups.items():
            leavers = list(distinct.values())
            numbers = self.rests.reduce(now.batch, leavers, block, midway, kind[0])
            number_of = dict(zip(distinct, numbers, strict=True))
            for name, (image, cut, number) in wanted[kind]:
                cut.rest[image, number] = number_of[name]

    def _ask(
        self,
        index: int,
        run: Run,
        now: Pass,
        heads: Heads,
        attended: Attended,
        cut: Cut,
        leaving: Tensor,
    ) -> Decision | None:
        """The cut's decision about those of a run's images that leave; None if none does."""
        here = leaving[torch.tensor(run.images)]
        if not here.any():
            return None
        mean, method = attended.shown[run], cut.method
        site = site_of(self.trunk, index, run, now, method.needs, heads, mean)
        rows = here.to(mean.device).nonzero()[:, 0]
        site = replace(site.of(rows), state=self.walks[_walk_key(method)])
        decided = self._guarded(cut.cells, partial(_decide, method, site))
        if decided is not None:
            cut.write(decided, run, here.nonzero()[:, 0], index + 1)
        return decided

    def _guarded(self, cells: set[int], ask: Callable):
        """What a decision says; None, and its cells have failed, where it raises."""
        try:
            return ask()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # these cells fail, the others go on
            self.failed |= dict.fromkeys(cells - self.failed.keys(), error)
            return None


def _walk_key(method: Asap) -> tuple[str, float]:
    return method.order, method.alpha


def _decide(method: Asap, site: Site) -> Decision:
    with torch.autocast(site.tokens.device.type, enabled=False):  # decide in float32
        return method.reduce(site, None)


def _split(decided: Decision, run: Run, here: list[int]) -> list[tuple[int, int, Leaving]]:
    """(place in the trunk, image, what becomes of it) of the images at places `here` of a run."""
    assert decided.weight is not None and isinstance(decided.left, Tensor)
    first = run.first_row // run.length
    target, weight = decided.target.cpu().numpy(), decided.weight.cpu().numpy()
    return [
        (first + i, run.images[i], Leaving(first + i, target[k], weight[k], left))
        for k, (i, left) in enumerate(zip(here, decided.left.tolist(), strict=True))
    ]
