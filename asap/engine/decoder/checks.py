"""Refuse an answer of a user's own pruner that cannot be applied.

Applied as it is, rows in another order or text rows in the place of visual ones would change
answers without an error.
"""

from itertools import pairwise
from typing import Any

from torch import Tensor

from asap.engine.checks import WHOLE, WrongDecision, described, is_own
from asap.methods.language.base import LanguageDecision, LanguageSite, Pruner


def checked(pruner: Pruner, site: LanguageSite, decision: Any) -> LanguageDecision | None:
    """What `decide` returned.

    WrongDecision if a user's own pruner returned anything else than None or a `LanguageDecision`
    that can be applied. It reads `keep`, which makes a GPU wait; pruners of this package are not
    checked.
    """
    if decision is None or not is_own(pruner):
        return decision
    if not isinstance(decision, LanguageDecision):
        raise WrongDecision(
            f"decide returned {described(decision)}: it must return a LanguageDecision, or None"
        )
    keep, merged, visual = decision.keep, decision.merged, site.span.visual
    if not (isinstance(keep, Tensor) and keep.dtype in WHOLE and keep.ndim == 1):
        raise WrongDecision(
            f"LanguageDecision.keep is {described(keep)}: it must be indices into the visual rows, "
            "a tensor of whole numbers (kept,)"
        )
    held = keep.tolist()
    if any(not 0 <= one < visual for one in held):
        wrong = next(one for one in held if not 0 <= one < visual)
        raise WrongDecision(
            f"LanguageDecision.keep has {wrong}: it must be 0 to {visual - 1}, indices into the "
            f"{visual} visual rows (row 0 of them is row {site.span.prefix} of the question)"
        )
    if any(a >= b for a, b in pairwise(held)):
        raise WrongDecision(
            "LanguageDecision.keep is not ascending, or has an index twice: sort it, as in "
            "scores.topk(k).indices.sort().values"
        )
    width = site.rows.shape[1]
    if merged is not None:
        floats = isinstance(merged, Tensor) and merged.is_floating_point()
        if not floats or merged.ndim != 2 or merged.shape[1] != width:
            raise WrongDecision(
                f"LanguageDecision.merged is {described(merged)}: it must be floats (m, {width})"
            )
    if decision.positions not in ("keep", "reindex"):
        raise WrongDecision(
            f"LanguageDecision.positions={decision.positions!r}: it must be 'keep' or 'reindex'"
        )
    if isinstance(decision.macs, bool) or not isinstance(decision.macs, int):
        raise WrongDecision(
            f"LanguageDecision.macs is {described(decision.macs)}: it must be an int"
        )
    return decision
