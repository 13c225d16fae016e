"""One table over several benchmarks, as the paper's: a row for each method, a column for each
benchmark, their average, rows and costs, and the paper's numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asap.errors import RequestError, one_line
from asap.report import paper
from asap.report.benchmarks.gate import benchmark_gate, mark, not_comparable
from asap.report.benchmarks.means import add_means, averaged, means_beside_paper, note_means
from asap.report.benchmarks.named import AVERAGE, BENCHMARKS, RELATIVE, Benchmark, in_order, named
from asap.report.benchmarks.unscored import SAID, is_unscored
from asap.report.benchmarks.values import score_of, shown, values_of
from asap.report.beside import BESIDE
from asap.report.beside_paper import add_paper, column_notes
from asap.report.columns import ROW, number, published
from asap.report.mixtures import refuse_other_data, refuse_other_models
from asap.report.nonfinite import nonfinite_note
from asap.report.questions import NOTES, ROWS, crops_of
from asap.report.result import Result
from asap.report.table import Table, TableColumn, TableRow

OVER = "scores, 95 % intervals"
_MANY = 0.01  # of a benchmark's answers; how many there are is in its own table
_CUT = "More than 1 % of the answers were cut at the limit of new tokens, or are empty."
_COSTS = ("visual_rows", "layer_visual_rows", "infer_gmacs", "macs_pct_of_dense")


@dataclass(frozen=True)
class _Line:
    """The results of one method: by the benchmark's column, and those without a record of which it
    is not known what was asked.
    """

    label: str
    of: dict[str, Result] = field(default_factory=dict)
    others: list[Result] = field(default_factory=list)

    @property
    def any(self) -> Result:
        """One of them, with a record if there is one."""
        found = [*self.of.values(), *self.others]
        return next((result for result in found if result.records), found[0])

    def result(self, one: Benchmark) -> Result | None:
        """That of a benchmark; else one that may be of it."""
        return self.of.get(one.column) or next(iter(self.others), None)


def is_over_benchmarks(results: Sequence[Result]) -> bool:
    """Whether these are answers to the questions of several benchmarks."""
    asked = any(score_of(result) is not None for result in results)
    return asked and len({_benchmark(result) for result in results} - {None}) > 1


def benchmarks_table(results: Sequence[Result], remarks: Sequence[str], paper_table: str) -> Table:
    """The table. Rows are matched by their labels; the first unreduced one is the full model.

    A cell without a number has a footnote with the reason. RequestError if the records of a
    benchmark are of several data sets, or if those of all are not of one model in one precision.
    """
    found = in_order(one for result in results if (one := _benchmark(result)) is not None)
    _refuse_mixtures(results, found)
    lines = _lines(results)
    backbone = next(result.backbone for result in results if result.backbone is not None)
    rows = [_row(line, found, backbone) for line in lines]
    dense = next((i for i, line in enumerate(lines) if line.any.is_dense), None)
    full, base = (None, {}) if dense is None else (rows[dense], lines[dense].of)
    for line, row in zip(lines, rows, strict=True):
        _add_share(row, line.of, base)
        add_paper(row, line.any, backbone, paper_table)
    gates = [benchmark_gate(b.data, base.get(b.column), paper_table, backbone) for b in found]
    for one, gate in zip(found, gates, strict=True):
        mark(rows, one.column, gate)
    chosen = averaged(full, found)
    add_means(rows, full, found)
    of_chosen = [gate for one, gate in zip(found, gates, strict=True) if one in chosen]
    means_beside_paper(rows, chosen, of_chosen, paper_table)
    splits = {s["name"]: s["split"] for s in map(score_of, results) if s is not None}
    columns = _columns(
        found, splits, paper_table if paper.in_table(paper_table, backbone) else None
    )
    notes = _column_notes(results, found, paper_table) | note_means(chosen, found)
    for one, gate in zip(found, gates, strict=True):
        if gate.state == "failed":
            notes[one.column].append(not_comparable(gate))
    return Table(
        title="Over benchmarks",
        columns=columns,
        rows=tuple(rows),
        caption=_caption(results, found),
        remarks=(*remarks, *(gate.line for gate in gates)),
        column_notes=notes,
        csv_keys=_csv_keys(columns, found),
    )


def _benchmark(result: Result) -> Benchmark | None:
    """What was asked; of questions of one's own only a record says it."""
    if (score := score_of(result)) is not None:
        return named(score["name"])
    return next((one for one in BENCHMARKS if one.data == result.data), None)


def _refuse_mixtures(results: Sequence[Result], found: Sequence[Benchmark]) -> None:
    refuse_other_models(results)
    for one in found:
        own = [record for r in results if _benchmark(r) == one for record in r.records.values()]
        if own:
            refuse_other_data(own)


def _lines(results: Sequence[Result]) -> list[_Line]:
    """The results by label; of a benchmark that was run twice the one with a record."""
    found: dict[str, _Line] = {}
    for result in results:
        line, one = found.setdefault(result.label, _Line(result.label)), _benchmark(result)
        if one is None:
            line.others.append(result)
            continue
        before = line.of.get(one.column)
        if before is not None and None not in (before.key, result.key) and before.key != result.key:
            raise RequestError(
                f"the table over benchmarks has two rows {result.label!r} of {one.column}, records "
                f"{before.key} and {result.key}: give them labels of their own"
            )
        if before is None or before.key is None:
            line.of[one.column] = result
    return list(found.values())


def _row(line: _Line, found: Sequence[Benchmark], backbone: str) -> TableRow:
    """A row with its numbers, or the reason for each that is missing."""
    row, any_ = TableRow(), line.any
    row.values |= {"model": paper.paper_model(backbone) or backbone, "backbone": backbone}
    row.values |= {"method": line.label, "paper_row": any_.paper_method}
    row.values |= {"dense": int(any_.is_dense), "extension": int(any_.ours)}
    if any_.ours:
        row.note("An extension of ours; the paper has no such method.", "method")
    if any_.note:
        row.note(any_.note, "method")
    for one in found:
        _add_score(row, one, line.result(one))
    return row


def _add_score(row: TableRow, one: Benchmark, result: Result | None) -> None:
    score = None if result is None else score_of(result)
    if result is None or score is None:
        reason = (None if result is None else result.reason) or "it was not run"
        row.note(f"No record of {one.title}: {one_line(reason).rstrip('.')}.", one.column)
        return
    column, about = one.column, result.measured["questions"]
    row.values |= {**values_of(score), f"{column}_split": score["split"]}
    row.values[f"{column}_key"] = result.key
    if is_unscored(result):
        row.note(f"{one.title} ({score['split']}) is not scored here. {SAID}", column)
    elif score["score"] is None:
        row.note(f"{one.title} has no number over these questions: {score['metric']}.", column)
    if about["n_cut"] + about["n_empty"] > _MANY * result.measured["n"]:
        row.note(_CUT, column)
    if result.measured["n_failed"]:
        row.note(f"Without {result.measured['n_failed']:,} that could not be answered.", column)
    if note := nonfinite_note(result.measured):
        row.note(note, column)


def _add_share(row: TableRow, own: Mapping[str, Result], full: Mapping[str, Result]) -> None:
    """Rows and costs: means over the benchmarks that have a record."""
    there = {column: result for column, result in own.items() if result.accuracy is not None}
    if not there:
        row.note("No record of any benchmark.", *_COSTS)
        return
    abouts = [result.measured["questions"] for result in there.values()]
    row.values["visual_rows"] = _mean([about["visual_rows"] for about in abouts])
    in_a_layer = [_mean(about["layer_rows"]) - about["prompt_rows"] for about in abouts]
    row.values["layer_visual_rows"] = _mean(in_a_layer)
    row.values["infer_gmacs"] = _mean([result.gmacs for result in there.values()])
    both = [c for c in there if c in full and full[c].accuracy is not None]
    if both:
        share = sum(there[c].gmacs for c in both) / sum(full[c].gmacs for c in both)
        row.values["macs_pct_of_dense"] = 100 * share


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _columns(
    found: Sequence[Benchmark], splits: Mapping[str, str], table: str | None
) -> tuple[TableColumn, ...]:
    """splits: those that were asked, by the benchmark's name."""

    def title(one: Benchmark) -> str:
        split = splits.get(one.data)
        return f"{one.title}\n({split})" if one.several and split else one.title

    keys = {one.column: (one.column, f"{one.column}_lo", f"{one.column}_hi") for one in found}
    wanted = {*keys, AVERAGE, RELATIVE}
    beside = [b for b in BESIDE.get(table or "", ()) if b.ours in wanted]
    return (
        TableColumn("Method", ROW, ("method",), number("method", ""), left=True),
        *(TableColumn(title(one), OVER, keys[one.column], shown(one)) for one in found),
        TableColumn("Avg", OVER, (AVERAGE,), number(AVERAGE, ".1f")),
        TableColumn("Rel\n(%)", OVER, (RELATIVE,), number(RELATIVE, ".1f")),
        TableColumn("visual\nrows", ROWS, ("visual_rows",), number("visual_rows", ".1f")),
        TableColumn("in a\nlayer", ROWS, _COSTS[1:2], number("layer_visual_rows", ".1f")),
        TableColumn("GMACs", ROWS, ("infer_gmacs",), number("infer_gmacs", ".4g")),
        TableColumn("% of\nfull", ROWS, _COSTS[3:], number("macs_pct_of_dense", ".1f")),
        *(column for b in beside for column in published(b)[1:]),
    )


def _csv_keys(columns: Sequence[TableColumn], found: Sequence[Benchmark]) -> tuple[str, ...]:
    more = [f"{one.column}_{name}" for one in found for name in ("n", "split", "key", "comparable")]
    own = ("paper_row", "backbone", "extension", "dense")
    return tuple(dict.fromkeys([*(key for c in columns for key in c.keys), *more, *own]))


def _caption(results: Sequence[Result], found: Sequence[Benchmark]) -> tuple[str, ...]:
    record = next(r.accuracy for r in results if r.accuracy is not None)
    model = paper.paper_model(record["backbone"]) or record["backbone"]
    over = ", ".join(one.title for one in found)
    said = f"{model} on {over}. Precision: {record['precision']}, on {record['device']}."
    return (said, *crops_of(results))


def _column_notes(
    results: Sequence[Result], found: Sequence[Benchmark], table: str
) -> dict[str, list[str]]:
    """What each column is of, and what the paper's contradict."""
    notes: dict[str, list[str]] = {}
    for one in found:
        scores = [(r, s) for r in results if (s := score_of(r)) is not None]
        about = [
            f"{r.measured['data']}: {s['metric']}." for r, s in scores if s["name"] == one.data
        ]
        notes[one.column] = list(dict.fromkeys(about))
    over = "Mean over the benchmarks, each counted once."
    notes["visual_rows"] = [NOTES["visual_rows"], over]
    notes["layer_visual_rows"] = [NOTES["layer_visual_rows"]]
    notes["infer_gmacs"] = ["Of a question: tower, projector, prefill and methods.", over]
    pairs = [(str(r.backbone), r.paper_method) for r in results if r.paper_method]
    for key, texts in column_notes(pairs, table).items():
        notes.setdefault(key, []).extend(texts)
    return notes
