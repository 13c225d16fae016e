"""Keeps the bits of a row's result independent of the number of rows in the batch.

On CPU the matrix library distributes rows to threads in groups of four; one to three remaining rows
are computed by another kernel, whose last bits differ. Which rows remain depends on the number of
rows and of threads: in float64 for any number of rows, else up to about `T (4 T - 1)` rows on T
threads. So such products run on a multiple of `MIN_ROWS` rows, padded with zero rows, which are not
counted as work. Convolutions of a single small image use another kernel too; they run on at least
`MIN_IMAGES` images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

MIN_ROWS = 8
MIN_IMAGES = 2
CHUNK = 2048  # rows of a product where their number is fixed
_in_chunks = False


@contextmanager
def in_chunks(wanted: bool) -> Iterator[None]:
    """Inside, row products run on `CHUNK` rows each if `wanted`, the last ones padded with zeros.

    On a GPU the library chooses a kernel by the number of rows.
    """
    global _in_chunks
    before, _in_chunks = _in_chunks, wanted
    try:
        yield
    finally:
        _in_chunks = before


def rows_are_chunked() -> bool:
    """Whether row products run on a fixed number of rows now."""
    return _in_chunks


def rowwise(
    layer: Callable[[Tensor], Tensor], rows: Float[Tensor, "n dim"]
) -> Float[Tensor, "n out"]:
    """`layer(rows)` for a layer that treats each row alone; same bits for any number of rows."""
    if _in_chunks:
        return torch.cat([_on_chunk(layer, part) for part in rows.split(CHUNK)])
    missing = -len(rows) % MIN_ROWS
    if not missing or not _sensitive(rows):
        return layer(rows)
    padding = rows.new_zeros(missing, rows.shape[1])
    return layer(torch.cat([rows, padding]))[: len(rows)]


def _on_chunk(layer: Callable[[Tensor], Tensor], rows: Float[Tensor, "n dim"]) -> Tensor:
    whole = torch.nn.functional.pad(rows, (0, 0, 0, CHUNK - len(rows))).contiguous()
    return layer(whole)[: len(rows)]


def _sensitive(rows: Float[Tensor, "n dim"]) -> bool:
    """True if remaining rows may get other bits than the rest."""
    if rows.device.type != "cpu":
        return False
    threads = torch.get_num_threads()
    return rows.dtype == torch.float64 or len(rows) < threads * (4 * threads - 1) + MIN_ROWS


def row_products(
    rows: Float[Tensor, "b r n"], matrices: Float[Tensor, "b n m"]
) -> Float[Tensor, "b r m"]:
    """`rows @ matrices` for each batch element, which has few rows."""
    few = rows.shape[1]
    if rows.device.type == "cpu" and few < MIN_ROWS:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, MIN_ROWS - few))
    return torch.bmm(rows, matrices)[:, :few]


def imagewise(
    layers: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b n dim"]:
    """`layers(images)` for convolutions; same bits for an image alone and in a batch."""
    missing = max(0, MIN_IMAGES - len(images)) if images.device.type == "cpu" else 0
    if not missing:
        return layers(images)
    padding = images.new_zeros(missing, *images.shape[1:])
    return layers(torch.cat([images, padding]))[: len(images)]
