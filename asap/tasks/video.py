"""Video: a clip has one right class, and a head ranks the classes from features of its frames."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asap.data.base import DataSet, PatchGrid, Sample
from asap.records.schema import ClipsRecord, Spread
from asap.records.tables import column
from asap.report.statistics import evaluated, mean_interval
from asap.tasks.base import Task
from asap.tasks.classification import NAN, OBJECT, accuracy_of, best_named, is_first
from asap.tasks.motion import MOTION, changes

OTHER_ERROR = "other"  # the kind of an error that does not begin with one


@dataclass(frozen=True)
class Video(Task):
    """Top-1 and top-5 of clips, from the features of their frames.

    The outputs of the backbone are the features. They are rounded to `features`, the type of the
    file that the head was trained on, in every row alike.

    head: float32 features (views, frames, width) -> logits (views, classes), on the CPU; None where
        only the columns are asked for. grid: rows and columns of patches. scored: the classes that
        are compared, ascending; None: all. head_macs: multiply-accumulates of the head for a clip.
    """

    head: nn.Module | None = None
    features: torch.dtype = torch.float32
    grid: PatchGrid = (1, 1)
    scored: tuple[int, ...] | None = None
    head_macs: int = 0
    name: ClassVar[str] = "video"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("label", "int"),
        column("other_labels", "int", listed=True),  # none: a clip has one right class
        column("top5", "int", listed=True),  # classes, best first; empty if not finite
        column("top5_logits", "float", listed=True),  # logarithms of the views' mean probabilities
        column("decoder", "text"),  # that read the clip; empty if none did
        column("length", "text"),  # verified | unverified: the container has no duration
        *(column(name, "float") for name in MOTION),
    )

    @classmethod
    def of(cls, data: DataSet) -> "Video":
        return cls(scored=data.scored)

    def answered(
        self,
        samples: Sequence[Sample],
        outputs: Float[Tensor, "images width"],
        traces: Mapping[str, Tensor],
    ) -> Mapping[str, Any]:
        """See `Task.answered`; an answer is not finite if a feature or a logit is not."""
        parts = {name: values.split(len(values) // len(samples)) for name, values in traces.items()}
        moved = [
            changes(
                {name: values[i] for name, values in parts.items()},
                sample.frames,
                self.grid,
                sample.extras.get("frame_difference"),
            )
            for i, sample in enumerate(samples)
        ]
        return {
            **self._asked(samples),
            **best_named(self._logits(samples, outputs), self.scored),
            **{name: [row[name] for row in moved] for name in MOTION},
        }

    def right(
        self, samples: Sequence[Sample], outputs: Float[Tensor, "images width"]
    ) -> Bool[Tensor, " clips"]:
        """See `Task.right`."""
        return is_first(self._logits(samples, outputs), samples, self.scored)

    def _logits(
        self, samples: Sequence[Sample], outputs: Float[Tensor, "images width"]
    ) -> Float[Tensor, "clips classes"]:
        """Of clips, which all have the same number of images."""
        clips = outputs.unflatten(0, (len(samples), -1, samples[0].frames))
        return torch.stack([self._of_a_clip(clip) for clip in clips])

    def _of_a_clip(self, views: Float[Tensor, "views frames width"]) -> Float[Tensor, " classes"]:
        """The logarithms of the mean over the views of their probabilities.

        Every view goes through the head by itself, so that its bits do not depend on the batch.
        """
        assert self.head is not None, "a task that answers has a head"
        rounded = views.to(self.features).float()
        with torch.no_grad():
            found = [self.head(view[None])[0].log_softmax(0) for view in rounded]
        return torch.stack(found).logsumexp(0) - torch.tensor(float(len(found))).log()

    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        nothing = [[] for _ in samples]
        unknown = {name: [NAN] * len(samples) for name in MOTION}
        return {**self._asked(samples), "top5": nothing, "top5_logits": nothing, **unknown}

    def _asked(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "label": [s.label for s in samples],
            "other_labels": [[] for _ in samples],
            **{k: [s.extras.get(k, "") for s in samples] for k in ("decoder", "length")},
        }

    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """As of images, with `clips`: the numbers of a record that only clips have."""
        found = accuracy_of(answers, clustered, "clips")
        return {**found, **dict.fromkeys(OBJECT), "clips": self._about(answers, clustered)}

    def _about(self, answers: pd.DataFrame, clustered: bool) -> ClipsRecord:
        read, failed = evaluated(answers), answers[answers["error"].notna()]
        decoders = Counter(read["decoder"].tolist())
        found = ClipsRecord(
            images=int(read["n"].max()),
            gmacs_head=self.head_macs / 1e9,
            failed=dict(Counter(error_kind(text) for text in failed["error"])),
            decoders={name: decoders[name] for name in sorted(decoders)},
            unverified=int((read["length"] == "unverified").sum()),
        )
        for name in MOTION:
            if (spread := _spread(read, name, clustered)) is not None:
                found[name] = spread
        return found


def error_kind(text: str) -> str:
    """What the error of a clip begins with: "missing", "short", ...; `OTHER_ERROR` without one."""
    kind, colon, _ = text.partition(": ")
    return kind if colon and len(kind.split()) <= 3 else OTHER_ERROR


def _spread(read: pd.DataFrame, name: str, clustered: bool) -> Spread | None:
    """Mean and interval over the clips that have the quantity; None if none has."""
    known = read[read[name].notna()]
    if known.empty:
        return None
    sources = known["cluster" if clustered else "index"].to_numpy()
    values = known[name].to_numpy(np.float64)
    low, high = mean_interval(values, sources)
    bounds = (low, high) if math.isfinite(low) else (None, None)
    return Spread(mean=math.fsum(values) / len(values), lo=bounds[0], hi=bounds[1], n=len(known))
