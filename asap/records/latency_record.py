"""The record of how long a vision-language model takes for a question, `latency.json`."""

from asap.records.kinds import HEAD, Kind, declare
from asap.records.schema import Quartiles, Ratio, RecordHead, TimedBy

SPANS = ("tower", "projector", "prefill", "first_token", "decode", "total")


class LatencyRecord(RecordHead):
    """`latency.json`: one question at a time, all rows in turn on the same questions.

    Times are milliseconds by `clock`, by the names of `SPANS`: the tower with its reduction, the
    projector, the prefill of the language model up to the first logits (pruning included), the
    first token (these three), one token decoded, and the whole. Ratios are this row over the full
    model with fused attention, paired question by question. Rows, stops and MACs (1e9) are means
    over the timed questions.
    """

    device: str
    device_name: str
    threads: int
    clock: TimedBy
    path: str  # how the engine ran the tower
    n_questions: int  # that count
    n_pictures: int
    warmup: int
    dropped: int  # questions left out because the device's clock had drifted
    times_ms: dict[str, Quartiles]
    full_times_ms: dict[str, Quartiles]
    ratios: dict[str, Ratio | None]
    refused: str | None  # why a ratio is not given
    preparation_ms: dict[str, Quartiles]  # of the wall, apart from the above: picture, prompt
    peak_memory_mb: float | None  # 2^20 bytes beside the weights, None: nothing tells it
    weights_mb: float
    missing: dict[str, str]  # what could not be measured -> the reason
    visual_rows: float  # sent to the language model
    prompt_rows: float
    layer_rows: list[float]  # into each layer of the language model, at prefill
    stop_histogram: dict[str, int]  # block number from 1 -> images of questions; "0": never
    gmacs: dict[str, float]  # tower, projector, prefill, vision_method, language_method
    full_gmacs: dict[str, float]
    kv_mib: float  # of the cache after prefill, in 2^20 bytes


LATENCY = declare(Kind("latency", 1, LatencyRecord.__required_keys__ - HEAD))
