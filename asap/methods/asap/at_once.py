"""ASAP's decision by a walk that makes it itself, for the options for which one can."""

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from asap.methods.asap.options import AsapOptions
from asap.methods.asap.reduction import known_count
from asap.methods.asap.walk import DecidingWalk
from asap.methods.base import Decision, Site

ANCHORS = ("sink", "mass", "quiet")  # which the walk's vectors tell


def decided_at_once(
    options: AsapOptions, site: Site, chosen: Bool[Tensor, "b"] | None
) -> Decision | None:
    """The decision about a site's images, with the MACs of P alone; None: not by this walk."""
    plain = options.anchor in ANCHORS and options.distance == "diffusion"
    plain = plain and options.clusters != "auto" and options.max_tokens is None
    if not (plain and options.accumulate and isinstance(site.state, DecidingWalk)):
        return None
    if site.watched is not None:
        chosen = site.watched if chosen is None else chosen & site.watched
    decision = site.state.around_sink(options, site.prefix, chosen)
    count = known_count(options, site)
    return decision if count is None else replace(decision, left=count + options.pool)
