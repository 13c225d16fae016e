"""`torch.autograd.grad` on the pretended device, whose streams torch's own engine would ask for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def grad(output: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of a number: every node of the graph after those that it gets gradients from."""
    first: Any = output.grad_fn
    given: dict[Any, list[Tensor | None]] = {first: [torch.ones_like(output)]}
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for node in _in_order(first):
            values = given.pop(node)
            if (leaf := getattr(node, "variable", None)) is not None:
                assert values[0] is not None
                found[id(leaf)] = values[0].sum_to_size(leaf.shape)
                continue
            shapes = [about.shape for about in node._input_metadata]  # before they were broadcast
            values += [None] * (len(shapes) - len(values))
            results = node(
                *(
                    None if v is None else v.sum_to_size(s)
                    for v, s in zip(values, shapes, strict=True)
                )
            )
            results = results if isinstance(results, tuple) else (results,)
            for (following, place), value in zip(node.next_functions, results, strict=True):
                if following is not None:
                    slots = given.setdefault(following, [])
                    slots += [None] * (place + 1 - len(slots))
                    old = slots[place]
                    slots[place] = value if old is None else old if value is None else old + value
    return tuple(found[id(x)] for x in inputs)


def _in_order(first: Any) -> list[Any]:
    """All nodes, each after every node that leads to it."""
    done: list[Any] = []
    seen = set[Any]()

    def visit(node: Any) -> None:
        if node not in seen:
            seen.add(node)
            for following, _ in node.next_functions:
                if following is not None:
                    visit(following)
            done.append(node)

    visit(first)
    return done[::-1]
