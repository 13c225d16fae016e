"""What ASAP itself computes, in closed form, for an image that stops in a known block."""

from asap.methods.asap.method import Asap


def forced_macs(method: Asap, tokens: int, prefix: int, depth: int, stop: int) -> int:
    """MACs of the walk, of P, and of the distances to the sink, as traces count them.

    tokens: of the image, the prefix included; depth: blocks of the backbone; stop: the block in
    which the image stops, from 1 (unused with `overhead`, which never stops). Pooled tokens'
    averages and a plug-in are not included: both depend on the image. ValueError for options with
    another walk, anchor or distance.
    """
    usual = {"order": "walk", "anchor": "sink", "accumulate": True, "distance_columns": "all"}
    if other := [name for name, value in usual.items() if getattr(method, name) != value]:
        raise ValueError(f"{other[0]}={getattr(method, other[0])!r} has no closed form here")
    if method.overhead:
        return (depth - 1) * tokens**3
    observed = stop * 2 * tokens**2  # column mass and class row, in every block
    return observed + (stop - 1) * tokens**3 + (tokens - prefix) * tokens
