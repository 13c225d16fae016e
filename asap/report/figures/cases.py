"""Chooses images of a random anchor's failures and lucky cases by a rule (Figures 13 and 14)."""

from dataclasses import dataclass

import pandas as pd

from asap.report.statistics import finite, hits, leads


@dataclass(frozen=True)
class AnchorCases:
    """Positions in the data set, the clearest cases first."""

    failures: tuple[int, ...]
    lucky: tuple[int, ...]


RULE = (
    "Failures: images the sink's anchor gets right and a random anchor gets wrong, where masks "
    "exist with the random anchor on the object; least object recall first. Lucky: images the "
    "random anchor gets right from the background, most object recall first. Ties, and data "
    "without masks: the lead of the first prediction (failures) or of the label (lucky), largest "
    "first, then the lower index. Only images that were reduced."
)


def anchor_cases(
    random: pd.DataFrame, sink: pd.DataFrame, traces: pd.DataFrame, count: int
) -> AnchorCases:
    """`count` failures and lucky cases, by `RULE`, from the answers of the two rows and the traces
    of the random one.

    Images unreadable in either, or never reduced by the random anchor, are left out, and those with
    an answer that is not finite: a precision's failure and no anchor's.
    """
    one = random.set_index("id", drop=False)
    two = sink.set_index("id", drop=False).reindex(one.index)
    there = one["error"].isna() & two["error"].isna() & two["label"].notna()
    reduced = traces["example"][traces["vision.stop_block"] > 0]
    there &= one["index"].isin(reduced)
    one, two = one[there], two[there]
    both = finite(one) & finite(two)
    one, two = one[both], two[both]
    if len(one) == 0:
        return AnchorCases((), ())
    right, sink_right = hits(one)[0], hits(two)[0]
    on_object = one["sink_on_object"]
    lost = one[(~right & sink_right) & ~(on_object == 0).to_numpy()]
    won = one[right & ~(on_object == 1).to_numpy()]
    return AnchorCases(_first(lost, count, 1.0), _first(won, count, -1.0))


def _first(rows: pd.DataFrame, count: int, sign: float) -> tuple[int, ...]:
    """The first indices by sign * object recall (0 if unknown), then largest lead, then index."""
    order = pd.DataFrame(
        {
            "recall": (sign * rows["object_recall"]).fillna(0.0),
            "lead": -leads(rows, alone=0.0),
            "index": rows["index"],
        }
    )
    return tuple(int(i) for i in order.sort_values(["recall", "lead", "index"])["index"][:count])
