"""Keep a row's result independent of how many rows stand beside it.

On CPU the matrix library deals rows out to threads in groups of four; one to three rows left over
go to another kernel, whose last bits differ. Which rows are left over depends on the number of rows
and of threads: in float64 whenever there are some, else up to about `T (4 T - 1)` rows on T
threads. So such products run on a multiple of `MIN_ROWS` rows, filled up with zero rows, which are
not counted as work.
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
    missing = -len(rows) % MIN_ROWS
    if not missing or not _sensitive(rows):
        return layer(rows)
    padding = rows.new_zeros(missing, rows.shape[1])
    return layer(torch.cat([rows, padding]))[: len(rows)]


def _sensitive(rows: Float[Tensor, "n dim"]) -> bool:
    """Whether left-over rows may get other bits than the rest."""
    if rows.device.type != "cpu":
        return False
    threads = torch.get_num_threads()
    return rows.dtype == torch.float64 or len(rows) < threads * (4 * threads - 1) + MIN_ROWS


def row_products(
    rows: Float[Tensor, "b r n"], matrices: Float[Tensor, "b n m"]
) -> Float[Tensor, "b r m"]:
    """`rows @ matrices` per batch element, with few rows each."""
    few = rows.shape[1]
    if rows.device.type == "cpu" and few < MIN_ROWS:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, MIN_ROWS - few))
    return torch.bmm(rows, matrices)[:, :few]
