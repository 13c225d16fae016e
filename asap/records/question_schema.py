"""The fields that only a record of questions has, see schema.py."""

from typing import Literal, NotRequired, TypedDict

YES, NO, OTHER = "yes", "no", "other"  # what an answer to a yes/no question says


class Share(TypedDict):
    """A mean score of n questions in percent, with its 95 % interval [lo, hi]."""

    score: float
    lo: float
    hi: float
    n: int


class YesNo(TypedDict):
    """n yes/no questions. Shares in percent; yes is the positive class, and [lo, hi] is the 95 %
    interval of F1, by a bootstrap over pictures. None where nothing was said or asked of the kind.

    An answer that says neither yes nor no counts as yes, POPE's rule; one that is not finite counts
    as wrong.
    """

    n: int
    accuracy: float
    f1: float | None
    lo: float | None
    hi: float | None
    precision: float | None
    recall: float | None
    yes_share: float  # of the answers
    labels_yes_share: float  # of the right answers
    n_other: int  # answers that say neither yes nor no


BenchmarkStatus = Literal["scored", "not scored here"]


class BenchmarkScore(TypedDict):
    """The number of a published benchmark, by its official rule.

    Shares and scores in percent, MME's in its own points (the maximum is 2,800). [lo, hi] is the
    95 % interval, None where one picture was asked about. parts: further numbers by name, such as
    those of a split or category.
    """

    name: str  # of the data set, such as "pope"
    split: str  # whose questions these are, such as "test-dev"
    metric: str  # what the number is, in words
    score: float | None  # None: not scored here
    lo: float | None
    hi: float | None
    n: int  # questions, as published tables count them
    n_expected: int | None  # of the complete split; None: not known
    status: BenchmarkStatus
    parts: dict[str, float]


class QuestionsRecord(TypedDict):
    """What only a record of questions has. Rows and GMACs (1e9) are means over the questions."""

    categories: dict[str, Share]
    yes_no: dict[str, dict[str, YesNo]]  # category -> "all" and each of its subsets
    average: float  # mean over the categories, in percent
    pictures: int
    n_cut: int  # answers that reached the limit of new tokens
    n_empty: int
    visual_rows: float  # sent to the language model
    prompt_rows: float
    layer_rows: list[float]  # into each layer of the language model, at prefill
    gmacs_tower: float
    gmacs_projector: float
    gmacs_prefill: float
    gmacs_vision_method: float
    gmacs_language_method: float
    kv_mib: float  # of the cache after prefill, in 2^20 bytes of the run's precision
    benchmark: NotRequired[BenchmarkScore]  # of the questions of a benchmark alone
