"""Reads the samples of a data set in batches, ahead of time in other processes."""

import sys
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asap.data.base import DataSet, Sample
from asap.errors import RequestError


def loader(
    dataset: DataSet, indices: Sequence[int], batch_size: int, workers: int
) -> Iterator[list[Sample]]:
    """The samples at `indices`, in that order, in lists of `batch_size` (the last may be shorter).

    `workers` processes read ahead; with 0 the caller reads.
    """
    batches = (list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size))
    packed = DataLoader(
        cast(Dataset, dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_pack,
        multiprocessing_context=_context(workers),
    )
    with _plainly():
        for batch in packed:
            yield _unpack(*batch)


def made_by_processes(work: Sized, workers: int) -> Iterator[Any]:
    """The items of a sequence that makes each when it is asked for it, in order.

    `workers` processes make them; with 0, and if there is only one, the caller does.
    """
    workers = min(workers, len(work)) if len(work) > 1 else 0
    made = DataLoader(
        cast(Dataset, work),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context=_context(workers),
    )
    with _plainly():
        yield from made


def _context(workers: int) -> str | None:
    """Fork: with the start method that a launcher may have set, workers would lose its state."""
    return "fork" if workers > 0 and sys.platform == "linux" else None


def _as_it_is(item: Any) -> Any:
    return item


@contextmanager
def _plainly() -> Iterator[None]:
    """Strip the worker's traceback that DataLoader puts in front of a RequestError's message."""
    try:
        yield
    except RequestError as error:
        said = str(error).strip().splitlines()[-1]
        raise RequestError(said.removeprefix("asap.errors.RequestError: ")) from error


Packed: TypeAlias = tuple[list[Sample], list[int], Tensor | None, dict[str, tuple[list, Tensor]]]


def _pack(samples: list[Sample]) -> Packed:
    """Samples without their tensors, how many images each has, and the tensors of the batch: its
    images, and each extra with the positions of the samples that have it. Each tensor sent by a
    worker holds an open file until it is freed, so a batch sends one and not one per image.
    """
    counts = [s.n_images for s in samples]
    inputs = [s.inputs for s in samples if s.inputs is not None]
    names = {k for s in samples for k, v in s.extras.items() if isinstance(v, Tensor)}
    held: dict[str, tuple[list, Tensor]] = {}
    for name in sorted(names):
        places = [i for i, s in enumerate(samples) if name in s.extras]
        held[name] = places, torch.stack([samples[i].extras[name] for i in places])
    plain = [{k: v for k, v in s.extras.items() if k not in names} for s in samples]
    bare = [
        replace(s, inputs=None, extras=extras) for s, extras in zip(samples, plain, strict=True)
    ]
    return bare, counts, torch.cat(inputs) if inputs else None, held


def _unpack(
    bare: list[Sample],
    counts: list[int],
    inputs: Tensor | None,
    held: dict[str, tuple[list, Tensor]],
) -> list[Sample]:
    """Undo `_pack`: readable samples take their images and extras in turn."""
    extras = [dict(sample.extras) for sample in bare]
    for name, (places, values) in held.items():
        for i, value in zip(places, values, strict=True):
            extras[i][name] = value
    parts = iter(() if inputs is None else inputs.split([n for n in counts if n]))
    return [
        replace(sample, inputs=next(parts) if n else None, extras=more)
        for sample, n, more in zip(bare, counts, extras, strict=True)
    ]
