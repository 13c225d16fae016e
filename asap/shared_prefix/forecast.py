"""The cost of every setting of a method, from one pass that reduces nothing.

Until an image stops it does not depend on the threshold, and how much is removed there does not
depend on the blocks after it. So one pass that observes all blocks and removes nothing gives the
costs of the whole grid, for a method that declares its threshold (`Method.stop_threshold`). The
pass asks the method itself; the tests compare its forecasts with measured costs, to the integer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from asap.core.macs import BackboneCost, backbone_macs
from asap.engine.regroup import averaged_rows
from asap.engine.watched import Watched
from asap.methods.base import Anatomy, Method, Observation, Site, StopThreshold
from asap.methods.search_space import SearchDimension

FEW = 16  # if the ends of a grid of whole numbers are at most this far apart, all between count
MOST = 3e38  # a threshold that nothing exceeds, also in float32


@dataclass
class _Pass:
    """One forward pass.

    Per image: `peak`, the largest level that was tested; `spent`, the MACs of observing. Per block:
    `levels` (3, images): the level that is compared with the threshold, whether it is compared,
    and whether the image is reduced in any case; `stops` (2 variants + 1, images): tokens left and
    the method's MACs if the image stops there (-1 if no threshold makes it stop), and `spent`.
    """

    state: Any
    peak: Tensor
    spent: Tensor
    levels: list[Tensor] = field(default_factory=list)
    stops: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Probe(Watched):
    """A method that observes every block and reduces nothing.

    variants: the method with other values of its `StopThreshold.amounts`. least: the smallest
    threshold that will be asked for.
    """

    variants: tuple[Method, ...] = ()
    least: float = 0.0
    passes: list[_Pass] = field(default_factory=list)

    @property
    def threshold(self) -> StopThreshold:
        assert self.inner.stop_threshold is not None
        return self.inner.stop_threshold

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> _Pass:
        state = self.inner.start_shared(anatomy, images, like)
        peak = like.new_full((images,), self.least)
        self.passes.append(_Pass(state, peak, torch.zeros_like(peak).long()))
        return self.passes[-1]

    def observe(self, site: Site) -> Observation:
        """Note the levels and costs of all images; none of them is reduced."""
        now: _Pass = site.state
        site = replace(site, state=now.state)
        lowest = self._asked(site, self.least)
        now.spent += lowest.macs
        level = lowest.diagnostics[self.threshold.column]
        nothing = torch.zeros_like(level, dtype=torch.bool)
        tested, forced = nothing, nothing
        if lowest.chosen is not None:
            highest = self._asked(site, MOST).chosen
            tested = ~nothing
            forced = tested if highest is True else nothing if highest is None else highest
        here = (forced | (tested & (level > now.peak))).nonzero()[:, 0]
        now.peak = torch.where(tested, torch.maximum(now.peak, level), now.peak)
        left = now.spent.new_full((2, len(self.variants), len(level)), -1)
        if len(here):
            left[:, :, here] = self._stopped(site.of(here))
            left[1, :, here] += now.spent[here]
        now.levels.append(torch.stack([level, tested.to(level), forced.to(level)]).cpu())
        now.stops.append(torch.cat([left[0], left[1], now.spent[None]]).cpu())
        return Observation(None)

    def _asked(self, site: Site, threshold: float) -> Observation:
        """The method's observation with another threshold; the first call advances the state."""
        found = replace(self.inner, **{self.threshold.option: threshold}).observe(site)
        assert found is not None, "a method with a threshold observes"
        return found

    def _stopped(self, site: Site) -> Int[Tensor, "2 v k"]:
        """Tokens left and the method's MACs of stopping here, under every variant."""
        found = []
        for variant in self.variants:
            decided = variant.reduce(site, None)
            assert decided is not None
            averaged = averaged_rows(decided.target, decided.weight).sum(1)
            macs = averaged * site.tokens.shape[-1] + decided.macs
            found.append(torch.stack([torch.as_tensor(decided.left).expand_as(macs), macs]))
        return torch.stack(found, 1)


class CostForecast:
    """MACs against dense, in %, of any setting, over the images that a probe has seen."""

    def __init__(self, probe: Probe, cost: BackboneCost, anatomy: Anatomy) -> None:
        self.probe, count = probe, len(probe.variants)
        full, depth = anatomy.tokens, anatomy.depth
        blocks = sum(probe.acts_in(block, depth) for block in range(depth))
        whole = [p for p in probe.passes if len(p.levels) == blocks]  # one may have been cut short
        levels = np.concatenate([torch.stack(p.levels).numpy() for p in whole], 2)
        self.level, tested, forced = levels[:, 0], levels[:, 1] > 0, levels[:, 2] > 0
        self.tested, self.forced = tested, forced
        stops = np.concatenate([torch.stack(p.stops).numpy() for p in whole], 2)
        tokens = np.full((full + 1, depth + 1), full)
        self.dense = float(backbone_macs(cost, tokens[:1], "")[0])
        self.costs = []  # per block (variants, images): of an image that stops there
        for block in range(blocks):
            tokens[:, block + 1 :] = np.arange(full + 1)[:, None]
            table = backbone_macs(cost, tokens, probe.position)
            self.costs.append(table[stops[block, :count]] + stops[block, count:-1])
            tokens[:, block + 1] = full
        self.places = {self._name(asdict(v)): i for i, v in enumerate(probe.variants)}
        self.never = self.dense + stops[-1, -1]  # of an image that never stops

    def __call__(self, options: Mapping[str, Any]) -> float | None:
        """The cost of a setting; None if the pass does not have it.

        That is: an option that was not varied, an untried value, a threshold below the least.
        """
        wanted = {**asdict(self.probe.inner), **options}
        threshold = wanted[self.probe.threshold.option]
        place = self.places.get(self._name(wanted))
        if place is None or threshold < self.probe.least:
            return None
        costs = self.never
        for block in reversed(range(len(self.costs))):
            stops = self.level[block] > np.asarray(threshold, self.level.dtype)
            stops = self.forced[block] | (self.tested[block] & stops)
            costs = np.where(stops, self.costs[block][place], costs)
        return 100 * (float(costs.mean()) / self.dense - 1)

    def _name(self, options: Mapping[str, Any]) -> str:
        """A name that is equal for settings that differ in the threshold only."""
        return repr([(k, v) for k, v in options.items() if k != self.probe.threshold.option])


def probe_for(method: Method, knobs: Sequence[SearchDimension]) -> Probe | None:
    """The probe of a method's grids; None if it declares no threshold or other options vary."""
    turned = {knob.name: knob for knob in knobs if knob.grid}
    threshold = method.stop_threshold
    if threshold is None or not set(turned) <= {threshold.option, *threshold.amounts}:
        return None
    knob = turned.get(threshold.option)
    values = [*knob.grid, *knob.beyond] if knob else [getattr(method, threshold.option)]
    names = [name for name in threshold.amounts if name in turned]
    variants = []
    for each in product(*(_values(turned[name]) for name in names)):
        try:
            variants.append(replace(method, **dict(zip(names, each, strict=True))))
        except ValueError:  # the search cannot build it either
            continue
    if not variants or not all(isinstance(v, int | float) for v in values):
        return None
    return Probe(method, tuple(variants), float(min(values)))


def _values(knob: SearchDimension) -> list[Any]:
    """The grid, the values beyond, and all whole numbers between if there are few."""
    values = list(dict.fromkeys((*knob.grid, *knob.beyond)))
    if knob.between != "whole" or max(knob.grid) - min(knob.grid) > FEW:
        return values
    return sorted({*values, *range(min(knob.grid), max(knob.grid))})
