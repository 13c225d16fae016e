"""Scores of some questions, from the rows of a table of answers."""

import math

import numpy as np
import pandas as pd

from asap.records.question_schema import OTHER, Share, YesNo
from asap.report.statistics import mean_interval, scores, share_interval
from asap.report.yes_no import Counts, f1_interval, says_yes


def share_of(frame: pd.DataFrame, clustered: bool) -> Share:
    """The mean score of questions, in percent."""
    values = scores(frame)
    sources = _sources(frame, clustered)
    if np.isin(values, (0.0, 1.0)).all():
        low, high = share_interval(values == 1, sources if clustered else None)
    else:
        low, high = mean_interval(values, sources)
    mean = math.fsum(values) / len(values)
    return Share(score=100 * mean, lo=100 * max(low, 0.0), hi=100 * min(high, 1.0), n=len(values))


def yes_no_of(frame: pd.DataFrame) -> YesNo:
    """The counts of yes/no questions."""
    yes, right = says_yes(frame)
    counts = Counts.of(yes, right)
    low, high = f1_interval(yes, right, frame["cluster"].to_numpy())
    return YesNo(
        n=counts.n,
        accuracy=100 * counts.accuracy,
        f1=_percent(counts.f1),
        lo=_percent(low),
        hi=_percent(high),
        precision=_percent(counts.precision),
        recall=_percent(counts.recall),
        yes_share=100 * counts.yes_share,
        labels_yes_share=100 * counts.labels_yes_share,
        n_other=int((frame["said"] == OTHER).sum()),
    )


def _sources(frame: pd.DataFrame, clustered: bool) -> np.ndarray:
    return frame["cluster" if clustered else "index"].to_numpy()


def _percent(share: float) -> float | None:
    return 100 * share if math.isfinite(share) else None
