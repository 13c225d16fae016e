"""The options of ASAP that calibration varies."""

from asap.methods.asap.options import AsapOptions
from asap.methods.base import Anatomy
from asap.methods.search_space import SearchDimension, doubling

TAU = (1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 10.0)
# The quiet anchor does best in early blocks, where the largest mass is still low.
QUIET = (1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0)
CLUSTERS = (2, 3, 4, 5, 6, 8, 10, 12)


def asap_search_space(options: AsapOptions, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
    """tau, and the option that sets how much is removed: `clusters`, or the token budget if any.

    Of a static setting: the number of nearest clusters, or the token budget if any, and the block.
    """
    if options.static:
        return _static(options, anatomy)
    early = options.anchor == "quiet" or options.distance == "self_aligned"
    tau = SearchDimension("tau", QUIET if early else TAU, between="real", beyond=(12.0, 16.0, 24.0))
    found = [tau]
    if options.max_tokens is not None:
        found.append(SearchDimension("max_tokens", _budgets(options, anatomy), between="whole"))
    elif options.clusters != "auto":
        grid = tuple(k for k in CLUSTERS if k > options.background)
        beyond = tuple(k for k in (16, 24, 32) if k > options.background)
        found.append(SearchDimension("clusters", grid, between="whole", beyond=beyond))
    other = {"after_attention", "after_block"} - {options.position}
    background = SearchDimension("background", beyond=(options.background + 1,))
    return (*found, background, SearchDimension("position", beyond=tuple(other)))


def _static(options: AsapOptions, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
    """What is removed, and where, if `max_block` alone sets the block; costs depend on k / K only.

    So K is not varied: the finer the clusters, the nearer to a budget.
    """
    clusters = int(options.clusters)
    if options.max_tokens is None:
        amount = SearchDimension("background", doubling(clusters - 1)[1:], between="whole")
    else:
        amount = SearchDimension("max_tokens", _budgets(options, anatomy), between="whole")
    found = [amount]
    if options.min_block is None:
        last = max(anatomy.depth - 1, 1)
        found.append(SearchDimension("max_block", tuple(range(1, last + 1))))
    if clusters < anatomy.patches:  # else k counts patches already
        found.append(SearchDimension("clusters", beyond=(2 * clusters,)))
    return tuple(found)


def _budgets(options: AsapOptions, anatomy: Anatomy) -> tuple[int, ...]:
    """Token budgets that are possible beside the pooled token and the plug-in's kappa."""
    least = max(2 if options.pool else 1, (options.kappa or 0) + options.pool)
    return tuple(v for v in doubling(anatomy.patches) if v > least) or (least,)
