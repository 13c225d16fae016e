"""Costs of a run's rows in closed form, for the stages of the paper's table of modular costs."""

from dataclasses import dataclass
from datetime import UTC, datetime

from asap.errors import RequestError
from asap.experiment.rows import Row
from asap.measure.question_cost import question_cost
from asap.measure.record_parts import describe
from asap.measure.session import Session
from asap.records.cost_record import COST, CostRecord
from asap.records.identity import VISION, identity_of
from asap.records.key import key_of
from asap.records.schema import environment
from asap.report.paper import paper_table
from asap.spec.read import read_group
from asap.spec.run_spec import RunSpec

NAMED = "measure.also.cost"
MODEL, NOTHING = "LLaVA-NeXT 7B", "none, by arithmetic alone"


@dataclass(frozen=True)
class CostPlan:
    """text: rows of the text of a question; stop: the block in which every crop stops."""

    text: int = 62
    stop: int = 12

    @classmethod
    def of(cls, spec: RunSpec) -> "CostPlan":
        """The plan that a run asks for; RequestError for an unknown key or an impossible value."""
        plan = read_group(cls, spec.measure.also[COST.name], NAMED)
        if plan.text < 0 or not 1 <= plan.stop <= 22:
            raise RequestError(
                f"{NAMED}={spec.measure.also[COST.name]} is not possible: give "
                "text 0 or more, and stop in 1..22"
            )
        return plan


class Cost:
    """What a question costs in the stage that a row has in the paper's table."""

    kind = COST

    def wanted(self, spec: RunSpec) -> bool:
        return COST.name in spec.measure.also

    def refuse(self, spec: RunSpec) -> None:
        CostPlan.of(spec)

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        plan = CostPlan.of(session.spec)
        return [_with_cost(session, row, plan) if row.open else row for row in rows]


def _with_cost(session: Session, row: Row, plan: CostPlan) -> Row:
    """The row with its record; without a number of rows in the paper, with the reason."""
    visual = visual_rows_of(row.method.paper)
    if visual is None:
        return row.without(f"the paper's table of modular costs has no row {row.method.paper!r}")
    found = question_cost(row.built, visual, plan.text, plan.stop)
    identity = identity_of(
        COST, {VISION: describe(row.built)}, {"model": MODEL},
        {"visual": visual, "text": plan.text, "stop": plan.stop},
    )  # fmt: skip
    cell = session.store.cell(key_of(identity))
    with cell.lock():
        if (record := cell.record(COST.name)) is None:
            about = CostRecord(
                schema_version=COST.version, key=cell.key, identity=identity,
                label=row.method.label, metrics={}, backbone=MODEL, data=NOTHING, precision="fp16",
                stage=str(row.method.paper), visual_rows=visual, text_rows=plan.text,
                **found, environment=environment(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )  # fmt: skip
            cell.finish(COST.name, row.config, about)
            record = cell.record(COST.name)
    assert record is not None
    return row.with_records(cost={**record, "label": row.method.label})


def visual_rows_of(stage: str | None) -> int | None:
    """The rows that the paper prints for a stage, such as "avg (1050)"; None without one."""
    for line in paper_table("modular_cost"):
        if line["stage"] == stage:
            return int("".join(c for c in line["tokens"] if c.isdigit()))
    return None
