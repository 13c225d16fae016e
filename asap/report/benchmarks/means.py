"""The average over benchmarks, as the paper forms it, and its share of the unreduced model's."""

from collections.abc import Mapping, Sequence

from asap.report import paper
from asap.report.benchmarks.named import AVERAGE, BENCHMARKS, RELATIVE, Benchmark, average
from asap.report.gate import Gate
from asap.report.table import TableRow

_MINUS = tuple(f"{key}_minus_paper" for key in (AVERAGE, RELATIVE))


def averaged(full: TableRow | None, found: Sequence[Benchmark]) -> list[Benchmark]:
    """The benchmarks of the average: those that the unreduced model has a number of."""
    return [one for one in found if full is not None and full.values.get(one.column) is not None]


def add_means(rows: Sequence[TableRow], full: TableRow | None, found: Sequence[Benchmark]) -> None:
    """Add Avg and Rel (%) to each row whose cells are all of the questions of the full row's."""
    chosen = averaged(full, found)
    for row in rows:
        if full is None or not chosen:
            row.note("There is no number without a reduction to compare with.", AVERAGE, RELATIVE)
        elif lacking := [reason for one in chosen if (reason := _lacks(row, full, one))]:
            row.note(f"No average: {'; '.join(lacking)}.", AVERAGE, RELATIVE)
        else:
            own, base = (
                average({b.column: r.values[b.column] for b in chosen}) for r in (row, full)
            )
            row.values[AVERAGE] = own
            if base:
                row.values[RELATIVE] = 100 * own / base


def _lacks(row: TableRow, full: TableRow, one: Benchmark) -> str | None:
    """Why a row's number of a benchmark cannot enter its average; None if it can."""
    if row.values.get(one.column) is None:
        return f"{one.title} has no number"
    own, base = ([r.values.get(f"{one.column}_{k}") for k in ("split", "n")] for r in (row, full))
    if own == base:
        return None
    (split, n), (full_split, full_n) = own, base
    return (
        f"{one.title} is over {n:,} questions ({split}), {full_n:,} ({full_split}) in the full row"
    )


def note_means(chosen: Sequence[Benchmark], found: Sequence[Benchmark]) -> dict[str, list[str]]:
    """Footnotes of the two columns: what the average is over."""
    if not chosen:
        return {}
    names = ", ".join(b.title + ("" if b.divisor == 1 else f" / {b.divisor:g}") for b in chosen)
    said = f"Mean over {names}."
    if left := [one.title for one in found if one not in chosen]:
        said += f" Without {', '.join(left)}: no number of the full model."
    return {AVERAGE: [said], RELATIVE: ["The average, in % of the unreduced model's."]}


def means_beside_paper(
    rows: Sequence[TableRow],
    chosen: Sequence[Benchmark],
    gates: Sequence[Gate],
    table: str,
) -> None:
    """Make the paper's Avg and Rel those over the chosen benchmarks, recomputed where it prints
    them over others, and form no difference where a gate is not passed.
    """
    columns = [one.column for one in chosen]
    open_ = [gate.model for gate in gates if gate.state != "passed"]
    for row in rows:
        printed = {b.column: row.values.get(f"paper_{b.column}") for b in BENCHMARKS}
        known = {column for column, value in printed.items() if value is not None}
        if not known:  # the paper has no such row
            continue
        if set(columns) != known:
            _recompute(row, {c: printed.get(c) for c in columns}, paper.full_row(table))
        for key in (AVERAGE, RELATIVE):
            row.values[f"{key}_minus_paper"] = None
            if row.values.get(key) is None or row.values.get(f"paper_{key}") is None:
                continue
            if open_:
                which = "gate of {} is" if len(open_) == 1 else "gates of {} are"
                said = f"Not comparable: the {which.format(', '.join(open_))} not passed."
                row.note(said, f"{key}_minus_paper")
            else:
                row.values[f"{key}_minus_paper"] = row.values[key] - row.values[f"paper_{key}"]


def _recompute(row: TableRow, own: Mapping[str, float | None], full: Mapping[str, float]) -> None:
    """The paper's two numbers of a row over some of its columns; none if one of these is empty."""
    known = {column: value for column, value in own.items() if value is not None}
    row.values |= {f"paper_{AVERAGE}": None, f"paper_{RELATIVE}": None}
    keys = [f"paper_{AVERAGE}", f"paper_{RELATIVE}"]
    for key in (*keys, *_MINUS):
        row.notes.pop(key, None)
    if not known or len(known) < len(own):
        row.note("The paper has no numbers over these benchmarks.", *keys)
        return
    row.values[keys[0]] = average(known)
    if known.keys() <= full.keys():
        base = average({column: full[column] for column in known})
        row.values[keys[1]] = 100 * row.values[keys[0]] / base
    row.note("Recomputed from the paper's numbers of these benchmarks alone.", *keys)
