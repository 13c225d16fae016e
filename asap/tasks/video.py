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
from asap.errors import RequestError
from asap.records.schema import ClipsRecord, Spread
from asap.records.tables import column
from asap.report.statistics import evaluated, mean_interval
from asap.tasks.base import Task
from asap.tasks.classification import NAN, OBJECT, accuracy_of, best_named, is_first
from asap.tasks.motion import MOTION, changes

OTHER_ERROR = "other"  # the kind of an error that does not begin with one


@dataclass(frozen=True)
class FrameHead:
    """A trained head, and what it is applied to.

    module: float32 features (views, frames, width) -> logits (views, classes), on the CPU, where
        those of a view do not depend on the others. features: the type to which features are
        rounded first, in every row alike: that of the file that it was trained on. grid: rows and
        columns of patches. digest: of the head. macs: of the head, for a clip.
    """

    module: nn.Module
    features: torch.dtype
    grid: PatchGrid
    digest: str
    macs: int


@dataclass(frozen=True)
class Video(Task):
    """Top-1 and top-5 of clips: the backbone's outputs are features of frames, read by a head.

    head: None where only the columns are asked for. scored: the classes that are compared,
    ascending; None: all.
    """

    head: FrameHead | None = None
    scored: tuple[int, ...] | None = None
    name: ClassVar[str] = "video"
    examples: ClassVar[str] = "clips"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        column("label", "int"),
        column("other_labels", "int", listed=True),  # none: a clip has one right class
        column("top5", "int", listed=True),  # classes, best first; empty if not finite
        column("top5_logits", "float", listed=True),  # logarithms of the views' mean probabilities
        column("decoder", "text"),  # that read the clip; empty if none did
        column("length", "text"),  # verified | unverified: the container has no duration
        column("missing_frames", "int"),  # that the container promises; few, or it is an error
        *(column(name, "float") for name in MOTION),
    )

    @classmethod
    def of(cls, data: DataSet, head: FrameHead | None = None) -> "Video":
        return cls(head, data.scored)

    def answered(
        self,
        samples: Sequence[Sample],
        outputs: Float[Tensor, "images width"],
        traces: Mapping[str, Tensor],
    ) -> Mapping[str, Any]:
        """See `Task.answered`; an answer is not finite if a feature or a logit is not."""
        head = self._known_head()
        parts = {name: values.split(len(values) // len(samples)) for name, values in traces.items()}
        moved = [
            changes(
                {name: values[i] for name, values in parts.items()},
                sample.frames,
                head.grid,
                sample.extras.get("frame_difference"),
            )
            for i, sample in enumerate(samples)
        ]
        return {
            **self._asked(samples),
            **best_named(self.logits(samples, outputs), self.scored),
            **{name: [row[name] for row in moved] for name in MOTION},
        }

    def right(
        self, samples: Sequence[Sample], outputs: Float[Tensor, "images width"]
    ) -> Bool[Tensor, " clips"]:
        """See `Task.right`."""
        return is_first(self.logits(samples, outputs), samples, self.scored)

    def logits(
        self, samples: Sequence[Sample], outputs: Float[Tensor, "images width"]
    ) -> Float[Tensor, "clips classes"]:
        """The logarithms of the mean over a clip's views of their probabilities.

        The clips have equally many images.
        """
        head = self._known_head()
        views = outputs.to(head.features).float().unflatten(0, (-1, samples[0].frames))
        with torch.no_grad():
            found = head.module(views).log_softmax(1).unflatten(0, (len(samples), -1))
        return found.logsumexp(1) - math.log(found.shape[1])

    def _known_head(self) -> FrameHead:
        if self.head is None:
            raise RequestError(
                "head.file=null: clips are not answered without a trained head: give its file"
            )
        return self.head

    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        nothing = [[] for _ in samples]
        unknown = {name: [NAN] * len(samples) for name in MOTION}
        return {**self._asked(samples), "top5": nothing, "top5_logits": nothing, **unknown}

    def _asked(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "label": [s.label for s in samples],
            "other_labels": [[] for _ in samples],
            **{k: [s.extras.get(k, "") for s in samples] for k in ("decoder", "length")},
            "missing_frames": [s.extras.get("missing_frames", 0) for s in samples],
        }

    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """As of images, with `clips`: the numbers of a record that only clips have."""
        found = accuracy_of(answers, clustered, self.examples)
        return {**found, **dict.fromkeys(OBJECT), "clips": self._about(answers, clustered)}

    def _about(self, answers: pd.DataFrame, clustered: bool) -> ClipsRecord:
        read, failed = evaluated(answers), answers[answers["error"].notna()]
        decoders = Counter(read["decoder"].tolist())
        found = ClipsRecord(
            images=int(read["n"].max()),
            gmacs_head=0.0 if self.head is None else self.head.macs / 1e9,
            failed=dict(Counter(error_kind(text) for text in failed["error"])),
            decoders={name: decoders[name] for name in sorted(decoders)},
            unverified=int((read["length"] == "unverified").sum()),
            ended_early=int((read["missing_frames"] > 0).sum()),
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
