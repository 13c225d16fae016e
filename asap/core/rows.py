"""Keep a row's result independent of how many rows stand beside it.

On CPU the matrix library switches kernels for products with very few rows, and the last bits of a
row then depend on its neighbours. Products with at least `MIN_ROWS` rows were found invariant, so
shorter ones are padded with zero rows (the padding is not counted as work).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

MIN_ROWS = 8


def rowwise(
    layer: Callable[[Tensor], Tensor], rows: Float[Tensor, "n dim"]
) -> Float[Tensor, "n out"]:
    """`layer(rows)` for a layer that treats rows alone, bitwise the same however many there are."""
    if rows.device.type != "cpu" or len(rows) >= MIN_ROWS:
        return layer(rows)
    padding = rows.new_zeros(MIN_ROWS - len(rows), rows.shape[1])
    return layer(torch.cat([rows, padding]))[: len(rows)]


def row_products(
    rows: Float[Tensor, "b r n"], matrices: Float[Tensor, "b n m"]
) -> Float[Tensor, "b r m"]:
    """`rows @ matrices` per batch element, with few rows each."""
    few = rows.shape[1]
    if rows.device.type == "cpu" and few < MIN_ROWS:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, MIN_ROWS - few))
    return torch.bmm(rows, matrices)[:, :few]
