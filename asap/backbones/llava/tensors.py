"""The tensors of a checkpoint in safetensors files, read one at a time.

A file is mapped for one tensor and unmapped again, so that memory never holds more than the model
and the tensor that is being read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from asap.core.checkpoints import file_digest
from asap.errors import RequestError, one_line

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F16", "BF16", "F32", "F64"}  # safetensors' names of the types that weights have


@dataclass(frozen=True)
class Entry:
    """A tensor in a file, known from the file's header."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str  # safetensors' name of its type

    def read(self) -> Tensor:
        """The tensor, in memory of its own. RequestError if it holds NaN or infinity."""
        with safetensors.safe_open(self.file, framework="pt") as opened:
            value = opened.get_tensor(self.name).clone()
        if not torch.isfinite(value).all():
            raise RequestError(f"weights file {self.file} holds NaN or infinity in {self.name}")
        return value


def files_of(folder: Path) -> list[Path]:
    """The weights files of a checkpoint's folder, in the order of their names.

    RequestError if there is none in the safetensors format, or if one that the index names is
    missing.
    """
    index = folder / INDEX
    if (folder / SINGLE).is_file():  # as Hugging Face, also beside an index
        return [folder / SINGLE]
    if not index.is_file():
        if parts := sorted(p.name for p in folder.glob("*.safetensors")):
            raise RequestError(
                f"folder {folder} has {parts[0]} and no {INDEX}: download the whole checkpoint"
            )
        other = sorted(p.name for p in folder.glob("*.bin")) + sorted(
            p.name for p in folder.glob("*.pt*")
        )
        said = f" ({other[0]} is a pickle, which is not read)" if other else ""
        raise RequestError(
            f"folder {folder} has neither {SINGLE} nor {INDEX}{said}: save the weights as "
            "safetensors"
        )
    try:
        stated = json.loads(index.read_text("utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in stated})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = one_line(error, kind=True)
        raise RequestError(f"{index} cannot be read: {reason}: download it again") from None
    for name in names:
        if name != Path(name).name or not (folder / name).is_file():
            raise RequestError(
                f"folder {folder} lacks {name}, which {INDEX} names: download the whole checkpoint"
            )
    return [folder / name for name in names]


def entries_of(files: list[Path]) -> dict[str, Entry]:
    """All tensors in these files by name. RequestError for a damaged file, two tensors of one name,
    and a tensor whose type is not one that weights have."""
    found: dict[str, Entry] = {}
    for file in files:
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                held = {
                    name: Entry(file, name, tuple(part.get_shape()), part.get_dtype())
                    for name, part in parts.items()
                }
        except Exception as error:  # damaged files may fail in any way
            reason = one_line(error, kind=True)[:200]
            raise RequestError(
                f"weights file {file} cannot be read: {reason}: it is damaged or not a weights file"
            ) from None
        if twice := sorted(held.keys() & found.keys()):
            raise RequestError(f"weights file {file} repeats {twice[0]} of another file of it")
        found |= held
    return found


def refuse_quantised(entries: Mapping[str, Entry]) -> None:
    """RequestError, naming tensor and type, unless all of these hold floating-point numbers."""
    for entry in entries.values():
        if entry.kind not in FLOATS:
            raise RequestError(
                f"weights file {entry.file} does not fit: {entry.name} is {entry.kind} where "
                "weights are float16, bfloat16, float32 or float64: give a checkpoint that is not "
                "quantised"
            )


def fill(
    module: nn.Module, sources: Mapping[str, tuple[str, ...]], entries: Mapping[str, Entry]
) -> None:
    """Give a module, built on the device `meta`, the tensors of a checkpoint as its weights.

    sources: for each key of the module the entries it consists of, concatenated along the first
    axis. Types stay as in the file. What is not in the files is missing in `problems_of`, which
    comes first.
    """
    expected = module.state_dict()
    state = {}
    for key, names in sources.items():
        parts = [entries[name].read() for name in names]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        state[key] = whole.view(expected[key].shape)
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def problems_of(
    module: nn.Module, sources: Mapping[str, tuple[str, ...]], entries: Mapping[str, Entry]
) -> tuple[list[str], list[str]]:
    """What keeps the entries from being a module's weights: names that are missing, and shapes
    that differ, in words."""
    missing, shapes = [], []
    for key, value in module.state_dict().items():
        names = sources[key]
        wanted = (value.shape[0] // len(names), *value.shape[1:])
        for name in names:
            if name not in entries:
                missing.append(name)
                continue
            found = entries[name].shape
            if (1,) * (len(wanted) - len(found)) + found != wanted:  # an embedding lacks axes
                shapes.append(f"{name} is {found}, not {wanted[-len(found) :]}")
    return missing, shapes


def digest_of(files: list[Path]) -> str:
    """The sha256 of a single file; of several, that of their names and digests."""
    if len(files) == 1:
        return file_digest(files[0])
    lines = "".join(f"{file_digest(file)}  {file.name}\n" for file in files)
    return sha256(lines.encode()).hexdigest()
