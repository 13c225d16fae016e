"""Keeps the bits of a row's result independent of the number of rows in the batch.

On CPU the matrix library distributes rows to threads in groups of four; one to three remaining rows
are computed by another kernel, whose last bits differ. Which rows remain depends on the number of
rows and of threads: in float64 for any number of rows, else up to about `T (4 T - 1)` rows on T
threads. So such products run on a multiple of `MIN_ROWS` rows, padded with zero rows, which are not
counted as work. Convolutions of a single small image use another kernel too; they run on at least
`MIN_IMAGES` images.

Sigmoid, SiLU and GELU's tanh form take `PIECE` elements at once, and what is left over at the end
of a thread's share by another routine with other last bits. So a layer with such an activation runs
on as many rows as leave nothing over, see `even_rows`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

MIN_ROWS = 8
MIN_IMAGES = 2
PIECE = 64  # elements: the longest piece of torch's vector loops (bfloat16 with AVX-512)
GRAIN = 32768  # elements that torch gives a thread at least (its GRAIN_SIZE)
GELU_GRAIN = 16384  # elements beyond which it shares a GELU out to all threads
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
    layer: Callable[[Tensor], Tensor], rows: Float[Tensor, "n dim"], activated: int = 0
) -> Float[Tensor, "n out"]:
    """`layer(rows)` for a layer that treats each row alone; same bits for any number of rows.

    activated: how wide the activations are whose last bits depend on their place; 0: it has none.
    """
    if _in_chunks:
        return torch.cat([_on_chunk(layer, part) for part in rows.split(CHUNK)])
    step = MIN_ROWS if _sensitive(rows) else 1
    wanted = len(rows) + -len(rows) % step
    if activated and PIECE and rows.device.type == "cpu":
        wanted = even_rows(wanted, activated, step)
    if wanted == len(rows):
        return layer(rows)
    padding = rows.new_zeros(wanted - len(rows), rows.shape[1])
    return layer(torch.cat([rows, padding]))[: len(rows)]


def even_rows(rows: int, width: int, step: int = 1) -> int:
    """The next number of rows, by `step`, whose `width` elements each are shared out to threads in
    whole pieces.
    """
    threads = torch.get_num_threads()
    while True:
        elements = rows * width
        shares = min(threads, -(-elements // GRAIN))
        of_gelu = threads if elements > GELU_GRAIN else 1
        if elements % (PIECE * shares) == elements % (PIECE * of_gelu) == 0:
            return rows
        rows += step


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
