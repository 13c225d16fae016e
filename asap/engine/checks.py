"""Refuse an answer of a user's own method that cannot be applied.

Applied as it is, a wrong target would mix the rows of different images without an error. Methods of
this package are held to the same by the contract tests, and are not checked while they run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from asap.errors import one_line
from asap.methods.base import Decision, Method, Observation, Site

_ON_REQUEST = ("attention", "keys", "values", "value_norms", "drawn", "state")  # None if not asked
WHOLE = (torch.int16, torch.int32, torch.int64)


class WrongDecision(Exception):
    """An answer of a user's own method or pruner that cannot be applied: its row fails."""


def is_own(method: object) -> bool:
    """Whether a method or pruner is a user's own, defined outside this package."""
    return type(method).__module__.split(".")[0] != "asap"


def observed(method: Method, site: Site) -> Observation | None:
    """The method's answer to `observe`. WrongDecision if a user's own method returned anything else
    than an `Observation` with a mask of the site's images, or None.
    """
    with _asked_for(method, site):
        seen = method.observe(site)
    if seen is None or not is_own(method):
        return seen
    if not isinstance(seen, Observation):
        raise WrongDecision(_another("observe", seen, "an Observation"))
    if seen.chosen is not None and seen.chosen is not True:
        wanted = f"True, None, or a boolean tensor ({len(site.images)},), one value an image"
        fits = isinstance(seen.chosen, Tensor) and seen.chosen.dtype == torch.bool
        _require(fits and seen.chosen.shape == site.images.shape, "Observation.chosen", seen.chosen,
                 wanted)  # fmt: skip
    _check_number("Observation.macs", seen.macs, site)
    return seen


def reduced(method: Method, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision | None:
    """The method's answer to `reduce` about all images of a site.

    WrongDecision if a user's own method returned anything else than None or a `Decision` that can
    be applied: shapes and types everywhere, the values of `target` and `left` on a CPU, where they
    can be read without a wait.
    """
    with _asked_for(method, site):
        decision = method.reduce(site, chosen)
    if decision is None or not is_own(method):
        return decision
    if not isinstance(decision, Decision):
        raise WrongDecision(_another("reduce", decision, "a Decision"))
    shape = (len(site.images), site.length)
    whole = isinstance(decision.target, Tensor) and decision.target.dtype in WHOLE
    _require(
        whole and decision.target.shape == shape, "Decision.target", decision.target,
        f"a tensor of whole numbers {shape}, the output position of each token and -1 where it is "
        "dropped (keep_only(kept) makes it from a mask)",
    )  # fmt: skip
    weight = decision.weight
    floats = isinstance(weight, Tensor) and weight.is_floating_point()
    _require(weight is None or (floats and weight.shape == shape), "Decision.weight", weight,
             f"None or a tensor of floats {shape}")  # fmt: skip
    _check_number("Decision.left", decision.left, site)
    _check_number("Decision.macs", decision.macs, site)
    if site.looks and site.sizes.device.type == "cpu":
        _check_positions(decision, site)
    return decision


@contextmanager
def _asked_for(method: Method, site: Site) -> Iterator[None]:
    """Say what of the site is None where a user's own method takes it for granted."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if not is_own(method) or "NoneType" not in str(error):
            raise
        none = [name for name in _ON_REQUEST if getattr(site, name) is None]
        raise WrongDecision(
            f"{one_line(error)}: of its site {', '.join(none)} are None; `needs` asks for "
            "attention, keys, values and value_norms (not at position before_block)"
        ) from error


def _check_positions(decision: Decision, site: Site) -> None:
    """Prefix tokens stay in their places; outputs are 0, 1, 2, ... of each image, without gaps.

    In numpy, whose small operations cost a fraction of torch's: this is timed with the method.
    """
    target, prefix, length = decision.target.numpy(), site.prefix, site.length
    if (target[:, :prefix] != np.arange(prefix)).any():
        raise WrongDecision(
            f"Decision.target moves or drops one of the {prefix} prefix tokens (class, "
            f"distillation, registers): target[:, :{prefix}] must be 0 to {prefix - 1}"
        )
    most, least = int(target.max()), int(target.min())
    if most >= length or least < -1:
        raise WrongDecision(
            f"Decision.target has the position {most if most >= length else least}: of {length} "
            f"tokens it must be -1 (dropped) or 0 to {length - 1}"
        )
    taken = np.zeros((len(target), length + 1), dtype=bool)
    taken[np.arange(len(target))[:, None], target] = True  # the last column is for -1
    outputs, last = taken[:, :length].sum(1), target.max(1) + 1
    if (gaps := outputs != last).any():
        i = int(gaps.argmax())
        raise WrongDecision(
            f"Decision.target has gaps: the {int(outputs[i])} tokens left of an image have "
            f"positions up to {int(last[i]) - 1}; number them 0, 1, 2, ..., as keep_only(kept) does"
        )
    left = decision.left if isinstance(decision.left, int) else decision.left.numpy()
    if (other := (outputs != left) | (outputs == 0)).any():
        i = int(other.argmax())
        said = int(np.broadcast_to(left, outputs.shape)[i])
        raise WrongDecision(
            f"Decision.left={said}, and Decision.target leaves {int(outputs[i])} tokens of "
            "an image: left must be the number of different positions, at least 1"
        )


def _check_number(name: str, value: Any, site: Site) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    each = isinstance(value, Tensor) and value.dtype in WHOLE and value.shape == site.images.shape
    _require(whole or each, name, value,
             f"an int, or whole numbers ({len(site.images)},), one an image")  # fmt: skip


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise WrongDecision(f"{name} is {described(value)}: it must be {allowed}")


def _another(asked: str, value: Any, wanted: str) -> str:
    return f"{asked} returned {described(value)}: it must return {wanted}, or None"


def described(value: Any) -> str:
    """A value in an error message: a tensor by its type and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{value!r}" if isinstance(value, int | float | str) else f"a {type(value).__name__}"
