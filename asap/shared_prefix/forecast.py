"""What any threshold and number of clusters of ASAP would cost, from one pass that reduces nothing.

Up to its stop an image does not depend on tau, and how much is removed there not on what comes
after. So one look at all blocks, with nothing removed, holds the costs of the whole grid. The pass
asks ASAP's own parts; the tests hold its forecasts against measured costs, to the integer.
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
from asap.methods import Asap, Method
from asap.methods.asap.anchors import anchor_macs, find_anchor
from asap.methods.asap.clusters import cluster
from asap.methods.asap.reduction import Reduced, reduced_sequence
from asap.methods.asap.walk import Walk
from asap.methods.base import Anatomy, Needs, Observation, Site
from asap.methods.search_space import Knob

VARIED = ("clusters", "max_tokens")  # with tau, the knobs whose every setting can be forecast
FEW = 16  # whole numbers between the ends of a grid, so many at most, are looked at too


@dataclass
class _Pass:
    """One forward pass. Per image: `peak`, the largest mass that was tested; `spent`, the walk's
    MACs. Per block: (images) mass, (2 variants + 1, images) tokens left and the method's MACs of a
    stop there, -1 where no threshold stops, and `spent`.
    """

    walk: Walk
    peak: Tensor
    spent: Tensor
    masses: list[Tensor] = field(default_factory=list)
    stops: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Probe(Method):
    """ASAP looking at every block and reducing nothing.

    variants: the method with other values of the knobs that are `VARIED`. least: the smallest tau
    that will be asked for.
    """

    options: Asap = field(default_factory=Asap)
    variants: tuple[Asap, ...] = ()
    least: float = 0.0
    passes: list[_Pass] = field(default_factory=list)

    @property
    def draws(self) -> bool:
        return self.options.draws

    @property
    def needs(self) -> Needs:
        return self.options.needs

    @property
    def position(self) -> str:  # type: ignore[override]
        return self.options.position

    @property
    def proportional_attention(self) -> bool:  # type: ignore[override]
        return self.options.proportional_attention

    def acts_in(self, block: int, depth: int) -> bool:
        return self.options.acts_in(block, depth)

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> _Pass:
        walk = self.options.start(anatomy, images, like)
        peak = like.new_full((images,), self.least)
        self.passes.append(_Pass(walk, peak, torch.zeros_like(peak).long()))
        return self.passes[-1]

    def observe(self, site: Site) -> Observation:
        """A look at all images together, as none is ever reduced."""
        assert site.attention is not None
        now: _Pass = site.state
        now.spent += now.walk.advance(site.attention, site.images, site.block)
        skip = 0 if self.options.columns == "all" else site.prefix
        mass = now.walk.mass(site.images)[:, skip:].amax(1)
        here = self._stopping(site, mass, now).nonzero()[:, 0]
        left = now.spent.new_full((2, len(self.variants), len(mass)), -1)
        if len(here):
            left[:, :, here] = self._stopped(replace(site.of(here), state=now.walk))
            left[1, :, here] += now.spent[here]
        now.masses.append(mass.cpu())
        now.stops.append(torch.cat([left[0], left[1], now.spent[None]]).cpu())
        return Observation(None)

    def _stopping(self, site: Site, mass: Tensor, now: _Pass) -> Tensor:
        """The images that some threshold stops in this block and in none before."""
        number, last = site.block + 1, self.options.last_block(site.anatomy.depth)
        if number < self.options.min_block:
            return torch.zeros_like(mass, dtype=torch.bool)
        stops = mass > now.peak
        now.peak = torch.maximum(now.peak, mass)
        forced = self.options.miss == "force" and number == last
        return torch.ones_like(stops) if forced else stops

    def _stopped(self, site: Site) -> Int[Tensor, "2 v k"]:
        """Tokens left and the method's MACs of stopping here, under every variant."""
        matrix, spent = self.options.geometry(site)
        anchor, _ = find_anchor(self.options, site, matrix)
        spent += anchor_macs(self.options, site) + self.options.distance_macs(site)
        found = []
        for variant in self.variants:
            clusters = cluster(variant, matrix, anchor, site.prefix)
            reduced = reduced_sequence(variant, site, matrix, clusters, anchor)
            macs = _averaged(reduced) * site.tokens.shape[-1] + reduced.macs + spent
            found.append(torch.stack([reduced.left, macs]))
        return torch.stack(found, 1)


def _averaged(reduced: Reduced) -> Int[Tensor, "k"]:
    """Rows that take part in an average, as the engine counts them."""
    to, kept = reduced.target.clamp(min=0), reduced.target >= 0
    members = torch.zeros_like(to).scatter_add(1, to, kept.long())
    return (((members.gather(1, to) > 1) | (reduced.weight != 1)) & kept).sum(1)


class AsapForecast:
    """MACs against dense, in %, of any setting, over the images that a probe has seen."""

    def __init__(self, probe: Probe, cost: BackboneCost, anatomy: Anatomy) -> None:
        self.probe, count = probe, len(probe.variants)
        blocks, full = probe.options.last_block(anatomy.depth), anatomy.tokens
        whole = [p for p in probe.passes if len(p.masses) == blocks]  # one may have been cut short
        self.mass = np.concatenate([torch.stack(p.masses).numpy() for p in whole], 1)
        stops = np.concatenate([torch.stack(p.stops).numpy() for p in whole], 2)
        tokens = np.full((full + 1, anatomy.depth + 1), full)
        self.dense = float(backbone_macs(cost, tokens[:1], "")[0])
        self.costs = []  # per block (variants, images): of an image that stops there
        for block in range(blocks):
            tokens[:, block + 1 :] = np.arange(full + 1)[:, None]
            table = backbone_macs(cost, tokens, probe.position)
            self.costs.append(table[stops[block, :count]] + stops[block, count:-1])
            tokens[:, block + 1] = full
        self.places = {_name(asdict(v)): i for i, v in enumerate(probe.variants)}
        self.never = self.dense + stops[-1, -1]  # of an image that never stops

    def __call__(self, options: Mapping[str, Any]) -> float | None:
        """None for an option that was not varied, a value not looked at, a tau below the least."""
        probe, own = self.probe, asdict(self.probe.options)
        wanted = {**own, **options}
        tau = wanted["tau"]
        place = self.places.get(_name(wanted))
        if place is None or tau < probe.least:
            return None
        costs = self.never
        for block in reversed(range(len(self.costs))):
            if block + 1 >= probe.options.min_block:
                stops = self.mass[block] > np.asarray(tau, self.mass.dtype)
                if probe.options.miss == "force" and block == len(self.costs) - 1:
                    stops = np.ones_like(stops)
                costs = np.where(stops, self.costs[block][place], costs)
        return 100 * (float(costs.mean()) / self.dense - 1)


def _name(options: Mapping[str, Any]) -> str:
    """A variant, whatever its tau."""
    return repr([(k, v) for k, v in options.items() if k != "tau"])


def probe_for(method: Method, knobs: Sequence[Knob]) -> Probe | None:
    """The probe of a method's grids; None if the method is not ASAP or other options vary."""
    turned = {knob.name: knob for knob in knobs if knob.grid}
    if not isinstance(method, Asap) or not set(turned) <= {"tau", *VARIED}:
        return None
    tau = turned.get("tau")
    values = [*tau.grid, *tau.beyond] if tau else [method.tau]
    names = [name for name in VARIED if name in turned]
    variants = []
    for each in product(*(_values(turned[name]) for name in names)):
        try:
            variants.append(replace(method, **dict(zip(names, each, strict=True))))
        except ValueError:  # the search is refused it as well
            continue
    if not variants or not all(isinstance(v, int | float) for v in values):
        return None
    return Probe(method, tuple(variants), float(min(values)))


def _values(knob: Knob) -> list[Any]:
    """The grid, the values beyond, and what may be halved to if that is not much."""
    values = list(dict.fromkeys((*knob.grid, *knob.beyond)))
    if knob.between != "whole" or max(knob.grid) - min(knob.grid) > FEW:
        return values
    return sorted({*values, *range(min(knob.grid), max(knob.grid))})
