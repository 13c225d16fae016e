"""The record of what a row costs by arithmetic alone, `cost.json`."""

from asap.records.kinds import HEAD, Kind, declare
from asap.records.schema import RecordHead


class CostRecord(RecordHead):
    """`cost.json`: nothing is measured, and no weights are read.

    MACs of a question, exact integers: `macs` as this project counts them, by part (tower,
    projector, prefill, and method: that of the vision stage, the only one that reduces);
    `macs_paper` in the convention that the paper's first row shows, in which the tower has its last
    block too, and neither the projector nor the text is counted.
    """

    stage: str  # what the paper's table calls the row, "avg (1050)": no stage of the model
    visual_rows: int
    text_rows: int
    stop: int | None  # the block in which every picture is taken to stop; None: never
    macs: dict[str, int]
    macs_paper: int
    weights_bytes: int
    kv_bytes: int  # of the cache after prefill


COST = declare(Kind("cost", 1, CostRecord.__required_keys__ - HEAD))
