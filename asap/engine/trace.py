"""What happened to each image of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.engine.host import to_host
from asap.methods.base import Column, Decision

CORE = ("tokens", "stop_block", "assignment", "macs_backbone", "macs_method")
MISSING: dict[str, Any] = {"int": -1, "float": float("nan")}


@dataclass
class Trace:
    """What happened to each image of a batch (B images, L blocks, n patches).

    While the images run the tensors are on their device, `assignment` is in the batch and
    `macs_backbone` is 0; `finished` brings them to the CPU, at once. `stop_block` counts from 1 and
    0 means never; `assignment` is the final token that each patch ended in, -1 if it was dropped.
    `columns` holds what the method declared, by name, readable as attributes too (`trace.sink`):
    int64 (B,) or float32 (B,), (B, L) where per block; -1 or NaN where there is none. `sink` and
    `mass` are there for every method.
    """

    tokens: Int[Tensor, "b l_and_1"]
    stop_block: Int[Tensor, "b"]
    assignment: Int[Tensor, "b patches"]
    macs_backbone: Int[Tensor, "b"]
    macs_method: Int[Tensor, "b"]
    columns: dict[str, Tensor] = field(default_factory=dict)
    declared: tuple[Column, ...] = ()

    @classmethod
    def empty(
        cls,
        images: int,
        blocks: int,
        patches: int,
        prefix: int,
        declared: Sequence[Column] = (),
        device: torch.device | None = None,
    ) -> "Trace":
        """The trace before the first block."""
        zero = torch.zeros(images, dtype=torch.int64, device=device)
        return cls(
            tokens=zero[:, None].repeat(1, blocks + 1),
            stop_block=zero.clone(),
            assignment=(torch.arange(patches, device=device) + prefix).repeat(images, 1),
            macs_backbone=zero.clone(),
            macs_method=zero.clone(),
            columns={one.name: _missing(one, images, blocks, device) for one in declared},
            declared=tuple(declared),
        )

    def restart(self) -> None:
        """As before the first block, in the same memory."""
        for values in (self.tokens, self.stop_block, self.macs_backbone, self.macs_method):
            values.zero_()
        for column in self.declared:
            self.columns[column.name].fill_(MISSING[column.kind])

    @property
    def macs(self) -> Int[Tensor, "b"]:
        """MACs of each image, backbone and method together."""
        return self.macs_backbone + self.macs_method

    @property
    def sink(self) -> Int[Tensor, "b"]:
        return self._column("sink", torch.full_like(self.stop_block, -1))

    @property
    def mass(self) -> Float[Tensor, "b l"]:
        return self._column("mass", torch.full(self.tokens[:, 1:].shape, float("nan")))

    def _column(self, name: str, missing: Tensor) -> Tensor:
        return self.columns.get(name, missing)

    def __getattr__(self, name: str) -> Tensor:
        columns = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(f"this trace has no {name!r}: its method declares {[*columns]}")
        return columns[name]

    def write(
        self,
        images: Int[Tensor, "k"],
        block: int,
        macs: int | Int[Tensor, "k"],
        diagnostics: Mapping[str, Tensor],
        chosen: Bool[Tensor, "k"] | None = None,
    ) -> None:
        """Add the MACs that a method spent on some images at a block, and its diagnostics.

        `chosen`: a mask of the images to add them for; None = all. ValueError for a diagnostic
        that is not among the method's `trace_columns`.
        """
        self.macs_method[images] += macs if chosen is None else chosen * macs
        declared = {column.name: column for column in self.declared}
        for name, value in diagnostics.items():
            if name not in declared:
                raise ValueError(f"{name!r} is not among the columns that the method declares")
            held = self.columns[name]
            place = (images, block) if declared[name].per_block else images
            before, value = held[place], value.detach().to(held.device, held.dtype)
            value = combined(declared[name], before, value)
            held[place] = value if chosen is None else torch.where(chosen, value, before)

    def write_reduced(
        self,
        images: Int[Tensor, "k"],
        block: int,
        decision: Decision,
        chosen: Bool[Tensor, "k"] | None,
    ) -> None:
        """Add a decision's MACs and diagnostics, and the block where images were first reduced."""
        self.write(images, block, decision.macs, decision.diagnostics, chosen)
        before = self.stop_block[images]
        first = before == 0 if chosen is None else (before == 0) & chosen
        self.stop_block[images] = torch.where(first, block + 1, before)

    def finished(self, assignment: Int[Tensor, "b patches"]) -> "Trace":
        """The trace on the CPU, moved there in one transfer, with the patches' final tokens."""
        named = {**self.values(), "assignment": assignment}
        parts = sorted(
            named.items(), key=lambda part: -part[1].element_size()
        )  # keeps them aligned
        flat = [value.contiguous().flatten().view(torch.uint8) for _, value in parts]
        host = to_host(torch.cat(flat)).split([len(part) for part in flat])
        found = {
            name: part.view(value.dtype).view(value.shape).clone()  # memory of its own
            for (name, value), part in zip(parts, host, strict=True)
        }
        core = {name: found.pop(name) for name in CORE}
        columns = {column.name: found[column.name] for column in self.declared}
        return Trace(**core, columns=columns, declared=self.declared)

    def take(self, images: Int[Tensor, "k"]) -> "Trace":
        """The trace of some images of the batch."""
        core = {name: getattr(self, name)[images] for name in CORE}
        columns = {name: values[images] for name, values in self.columns.items()}
        return Trace(**core, columns=columns, declared=self.declared)

    def values(self) -> dict[str, Tensor]:
        """All columns by name: those of every method, then those of this one."""
        return {name: getattr(self, name) for name in CORE} | self.columns


def combined(column: Column, before: Tensor, value: Tensor) -> Tensor:
    """What a column holds after one more value of each image; a missing value never counts."""
    if column.combine == "last":
        return value
    if column.kind == "float":
        return torch.fmin(before, value)
    return torch.where(
        (before < 0) | (value < 0), torch.maximum(before, value), torch.minimum(before, value)
    )


def _missing(
    column: Column, images: int, blocks: int, device: torch.device | None = None
) -> Tensor:
    shape = (images, blocks) if column.per_block else (images,)
    kind = torch.int64 if column.kind == "int" else torch.float32
    return torch.full(shape, MISSING[column.kind], dtype=kind, device=device)
