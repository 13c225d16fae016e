"""The gate of a benchmark: is the unreduced model's number the published one?

Reduced rows can be set beside the paper's only if weights, prompts, pictures and scoring are those
behind its numbers. Its number of the unreduced model shows that: ours on the complete split must
lie within a tolerance of it.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from asap.errors import counted
from asap.records.question_schema import BenchmarkScore
from asap.report import paper
from asap.report.benchmarks.named import named
from asap.report.benchmarks.values import score_of
from asap.report.gate import Gate
from asap.report.nonfinite import too_many
from asap.report.result import Result
from asap.report.table import TableRow


def benchmark_gate(data: str, full: Result | None, table: str, backbone: str) -> Gate:
    """The verdict on the unreduced row of a benchmark. data: the benchmark's name; table: of the
    paper; full: None if there is no such row.
    """
    one, score = named(data), None if full is None else score_of(full)
    published = paper.full_row(table).get(one.column) if paper.in_table(table, backbone) else None
    if published is None:
        why = "no published number is for these questions and this model"
        return Gate(one.title, "not applicable", why)
    if full is None or full.accuracy is None or score is None:
        return Gate(one.title, "not applicable", "there is no record of the full model")
    spoilt = too_many(full.accuracy)
    if reasons := _other_questions(full, score):
        broken = [] if spoilt is None else [f"full: {spoilt}"]
        return Gate(one.title, "not applicable", "; ".join([*broken, *reasons]))
    away = Fraction(str(score["score"])) - Fraction(str(published))
    said = (
        f"the full model has {score['score']:.2f}, published {published:g}, difference "
        f"{float(away):+.2f}, tolerance {one.tolerance:g}, {full.accuracy['precision']}"
    )
    passed = abs(away) <= Fraction(str(one.tolerance)) and spoilt is None
    reasons = [said] if spoilt is None else [f"full: {spoilt}", said]
    return Gate(one.title, "passed" if passed else "failed", "; ".join(reasons))


def benchmark_gates(
    dense: Mapping[str, Result], rows: Sequence[TableRow], table: str
) -> dict[str, Gate]:
    """The verdicts on baselines by backbone, where their questions are a benchmark's that the
    paper's table has; each row of such a backbone is marked.
    """
    found = {}
    for backbone, full in dense.items():
        score = None if full.accuracy is None else score_of(full)
        if score is None or not paper.in_table(table, backbone):
            continue
        found[backbone] = benchmark_gate(score["name"], full, table, backbone)
        own = [row for row in rows if row.values["backbone"] == backbone]
        mark(own, named(score["name"]).column, found[backbone])
    return found


def _other_questions(full: Result, score: BenchmarkScore) -> list[str]:
    """Reasons if the number is not of the questions that the published one is of; else empty."""
    one, n, expected = named(score["name"]), score["n"], score["n_expected"]
    if score["score"] is None:
        why = "no number over these questions" if score["status"] == "scored" else score["status"]
        return [f"{score['split']}: {why}"]
    reasons = []
    if one.splits and score["split"] not in one.splits:
        reasons.append(
            f"the published number is of {' or '.join(one.splits)}, not {score['split']}"
        )
    if expected is not None and n != expected:
        reasons.append(f"{n:,} of {expected:,} questions")
    elif expected is None and (full.config or {}).get("limit") is not None:
        reasons.append(f"{n:,} of its questions")
    if full.measured["n_failed"]:
        failed = counted(full.measured["n_failed"], "question")
        reasons.append(f"{failed} could not be answered")
    return reasons


def mark(rows: Sequence[TableRow], column: str, gate: Gate) -> None:
    """Note a gate's verdict on a column; if it is not passed, form no difference from the paper."""
    for row in rows:
        row.values[f"{column}_comparable"] = gate.comparable
    if gate.state == "passed":
        return
    text = not_comparable(gate)
    for row in rows:
        if row.values.get(column) is not None and row.values.get(f"paper_{column}") is not None:
            row.values[f"{column}_minus_paper"] = None
            row.note(text, f"{column}_minus_paper")


def not_comparable(gate: Gate) -> str:
    """The footnote of a column whose gate is not passed."""
    outcome = "failed" if gate.state == "failed" else "does not apply"
    reason = gate.reason.removesuffix(".")
    return f"Not comparable with the paper's: the gate of {gate.model} {outcome}: {reason}."
