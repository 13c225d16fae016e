"""What an unfinished training leaves on the disk: the head so far, and the optimiser's state apart.

    <folder>/head-<step>.safetensors        as a finished head's file
    <folder>/optimiser-<step>.safetensors   AdamW's moments, and the curve so far

Both are of the state after so many steps; the optimiser's file is written first and names the head
that belongs to it, so whatever two files fit each other are a state.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from asap.backbones.video_head import HeadConfig, head_bytes, head_digest, load_head
from asap.core.checkpoints import tensors_digest
from asap.errors import RequestError, one_line
from asap.records.disk import guarded, write_bytes

log = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names for AdamW's
CURVE = "curve"


@dataclass(frozen=True)
class Checkpoints:
    """The states of one training, in a folder of their own.

    features: the digest of what it is trained on. A state of other features is not continued: a
    clip may be readable now that was not then.
    """

    folder: Path
    config: HeadConfig
    features: str = ""

    def save(
        self, head: nn.Module, optimiser: torch.optim.Optimizer, curve: Sequence[Sequence[float]]
    ) -> None:
        """Write the state after `len(curve)` steps, at least one, and delete earlier ones.

        RequestError if the disk does not take it; the state before is kept then.
        """
        step, tensors = len(curve), {CURVE: torch.tensor(curve, dtype=torch.float64)}
        for name, parameter in head.named_parameters():
            held = optimiser.state[parameter]
            tensors |= {f"{kind}.{name}": held[kind].cpu().contiguous() for kind in MOMENTS}
        stated = self._stated(head, tensors)
        moments = safetensors.torch.save(tensors, {"training": json.dumps(stated)})
        write_bytes(self._moments(step), moments)
        write_bytes(self._head(step), head_bytes(head, self.config))
        for earlier in self._steps():
            if earlier != step:
                self._remove(earlier)

    def restore(self, head: nn.Module, optimiser: torch.optim.Optimizer) -> list[list[float]]:
        """Put the last whole state into the head and the optimiser; returns the curve so far.

        A damaged state is ignored, with a warning. The curve is empty if there is none.
        """
        for step in sorted(self._steps(), reverse=True):
            try:
                found, config = load_head(self._head(step))
                curve, moments = self._read(step, found)
            except (RequestError, _Unfit) as reason:
                log.warning("training after step %d cannot be continued: %s", step, reason)
                continue
            if config != self.config:
                continue
            head.load_state_dict(found.state_dict())
            for name, parameter in head.named_parameters():
                held = {k: moments[f"{k}.{name}"].to(parameter.device) for k in MOMENTS}
                optimiser.state[parameter] = {"step": torch.tensor(float(step)), **held}
            return curve.tolist()
        return []

    def clear(self) -> None:
        """Delete all states and the folder."""
        with guarded(self.folder):
            for file in (*self.folder.glob("*.safetensors"), *self.folder.glob(".*.tmp")):
                file.unlink(missing_ok=True)
            if self.folder.exists():
                self.folder.rmdir()

    def _read(self, step: int, head: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        """The curve and the moments that belong to a head."""
        try:
            with safetensors.safe_open(self._moments(step), framework="pt") as file:
                stated = json.loads((file.metadata() or {})["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # damaged files may fail in any way
            raise _Unfit(f"its optimiser's file: {one_line(error, kind=True)[:200]}") from None
        if stated != self._stated(head, tensors):
            raise _Unfit("its optimiser's file is damaged, or of another head or other features")
        return tensors.pop(CURVE), tensors

    def _stated(self, head: nn.Module, tensors: dict[str, Tensor]) -> dict[str, str]:
        """What an optimiser's file with these tensors says about itself."""
        return {
            "head": head_digest(head, self.config),
            "features": self.features,
            "digest": tensors_digest(tensors),
        }

    def _steps(self) -> list[int]:
        """The steps of which a head is there."""
        names = [path.stem.removeprefix("head-") for path in self.folder.glob("head-*.safetensors")]
        return [int(name) for name in names if name.isdecimal()]

    def _head(self, step: int) -> Path:
        return self.folder / f"head-{step}.safetensors"

    def _moments(self, step: int) -> Path:
        return self.folder / f"optimiser-{step}.safetensors"

    def _remove(self, step: int) -> None:
        with guarded(self.folder):
            self._head(step).unlink(missing_ok=True)
            self._moments(step).unlink(missing_ok=True)


class _Unfit(Exception):
    """A state that cannot be continued; the message says why."""
