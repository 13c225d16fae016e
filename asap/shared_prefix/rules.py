"""What two settings of ASAP have in common: when their images stop, and what is done to them."""

from dataclasses import replace

from asap.methods.asap import Asap
from asap.methods.base import Method
from asap.methods.dense import Dense


def shareable(method: Method) -> bool:
    """Whether a method can share a trunk: the dense baseline, and ASAP where it reduces."""
    return type(method) is Dense or (type(method) is Asap and not method.overhead)


def stop_rule(method: Asap, depth: int) -> Asap:
    """All that decides when an image stops; equal for settings whose images always stop alike."""
    return Asap(
        alpha=method.alpha,
        order=method.order,
        columns=method.columns,
        tau=method.tau,
        min_block=method.min_block,
        max_block=method.last_block(depth),
        miss=method.miss,
    )


def cut_rule(method: Asap) -> Asap:
    """All that decides what becomes of an image that stops; the rest at its default."""
    plain = Asap()
    same = ("tau", "min_block", "max_block", "miss", "columns")
    if not method.accumulate:
        same += ("alpha", "order")
    if method.anchor != "random":
        same += ("seed",)
    if not method.pool:
        same += ("temperature", "weights")
    return replace(method, **{name: getattr(plain, name) for name in same})
