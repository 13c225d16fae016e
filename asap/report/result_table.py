"""From results to the table, by pure functions of records: nothing is measured here.

A cell without a measurement is empty and has a footnote with the reason. FLOPs (%) is exact,
from the multiply-accumulates of backbone and method together; intervals and p values come from
answers paired image by image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asap.errors import counted
from asap.records.files_left_out import counts_in_words
from asap.records.schema import CLOCKS
from asap.report import clips, latency, modular_cost, paper, questions
from asap.report import columns as layout
from asap.report.benchmarks.gate import benchmark_gates
from asap.report.benchmarks.table import benchmarks_table, is_over_benchmarks
from asap.report.benchmarks.unscored import is_unscored
from asap.report.beside_paper import column_notes
from asap.report.gate import gates
from asap.report.mixtures import refuse_mixtures
from asap.report.result import Result, accuracy_name, unreadable
from asap.report.scalars import ambiguous, metrics
from asap.report.table import Table
from asap.report.table_rows import make_row, prepared

_FURTHER = (modular_cost, latency)  # of records beside those of accuracy and throughput
_NAMED = 3  # images that a footnote names
_PAPERS_DATA = (
    "The paper's numbers are for the 50,000 ImageNet-1k validation images.",
    "The paper's numbers are for Kinetics-400; it does not say how many of the validation clips.",
)


def build_table(
    results: Sequence[Result],
    remarks: Sequence[str] = (),
    paper_table: str = "image_classification",
) -> Table:
    """The whole table: one row per result, all columns. Its CSV is the machine-readable form.

    paper_table: the paper's table whose numbers stand beside ours, a file of results/paper.

    The first result of a backbone whose method is `dense` is the baseline of its rows. Raises
    RequestError if the records mix data sets, precisions or (for speed) devices, or if there is no
    record at all. Answers to the questions of several benchmarks are a table over these.
    """
    if is_over_benchmarks(results):
        return benchmarks_table(results, remarks, paper_table)
    refuse_mixtures(results)
    backbones = _backbones(results)
    dense = _baselines(results, backbones)
    unread = unreadable(results)
    rows = tuple(
        make_row(result, b, dense.get(b), _has_speed(results, backbones, b), paper_table, unread)
        for result, b in zip(results, backbones, strict=True)
    )
    several = ambiguous(results)
    own = [metrics(result, several) for result in results]
    judges = any(result.accuracy or result.throughput for result in results)
    verdicts = gates(dense, backbones) | benchmark_gates(dense, rows, paper_table)
    for row, result, backbone, numbers in zip(rows, results, backbones, own, strict=True):
        judged = None if result is dense.get(backbone) else result.accuracy  # the gate covers dense
        row.values["comparable"] = verdicts[backbone].verdict(judged)
        row.values |= numbers
        for one in _FURTHER:
            one.add_to(row, result, results, paper_table)
    gmacs = max((row.values.get("infer_gmacs") or 0.0 for row in rows), default=0.0)
    in_paper = any(paper.in_table(paper_table, b) for b in backbones)
    columns = layout.columns(gmacs, paper_table if in_paper else None)
    if clips.has_clips(results):
        columns += clips.columns()
    asked = questions.has_questions(results)
    columns = questions.with_columns(columns, results) if asked else columns
    more = list(questions.csv_keys(results)) if asked else []
    for one in _FURTHER:
        columns += one.columns(results, paper_table)
        more += one.csv_keys(results)
    return Table(
        title="Results",
        columns=columns,
        rows=rows,
        caption=(
            *_caption(results, dense),
            *(line for one in _FURTHER for line in one.caption(results)),
        ),
        remarks=(
            *remarks,
            *(line for one in _FURTHER for line in one.remarks(results, paper_table)),
            *(gate.line for gate in verdicts.values() if judges),
        ),
        column_notes=_column_notes(results, backbones, paper_table, unread),
        csv_keys=tuple(
            dict.fromkeys([*layout.csv_keys(columns), *more, *sorted(set().union(*own))])
        ),
    )


def _backbones(results: Sequence[Result]) -> list[str]:
    """Each row's backbone. A row of unknown backbone has that of the row above, or the first known
    one.
    """
    known = next(result.backbone for result in results if result.backbone is not None)
    found = []
    for result in results:
        known = result.backbone or known
        found.append(known)
    return found


def _baselines(results: Sequence[Result], backbones: Sequence[str]) -> dict[str, Result]:
    """The first dense result of each backbone."""
    found: dict[str, Result] = {}
    for result, backbone in zip(results, backbones, strict=True):
        if result.is_dense:
            found.setdefault(backbone, result)
    return found


def _has_speed(results: Sequence[Result], backbones: Sequence[str], backbone: str) -> bool:
    pairs = zip(results, backbones, strict=True)
    return any(result.throughput is not None and name == backbone for result, name in pairs)


def _column_notes(
    results: Sequence[Result],
    backbones: Sequence[str],
    paper_table: str,
    unread: Mapping[int, str],
) -> dict[str, list[str]]:
    notes = {
        "flops_pct": [
            "Multiply-accumulates (the paper says FLOPs) of backbone and method together, against "
            "dense, unrounded."
        ],
        "throughput_pct": [
            "Against the eager dense baseline. The paper's column was taken on an RTX 4090 and is "
            "comparable only with "
            "this ratio in float32 on that device."
        ],
        "paper_throughput_pct": ["On an RTX 4090."],
        "ratio_best": [
            "The model without a reduction in the engine that runs the methods: what a method "
            "gains from its reduction alone."
        ],
        "ratio_compiled": ["timm's model after torch.compile."],
        "timed_macs_pct": ["Of backbone and method together."],
        "timed_tokens": ["Tokens that enter a block, mean over blocks."],
        "engine_path": [
            "graphs: kernels of this project in CUDA graphs; launches: the same, launched one by "
            "one; decisions step by step: the method's decisions by themselves between these; "
            "torch: torch's operations; recorded torch: those in CUDA graphs; strict: with fixed "
            "chunks of rows."
        ],
        "latency_p50_ms": ["One image a call, waited for: median and 95th percentile."],
        "peak_memory_mb": ["Peak of a batch, beside weights and images."],
        "joules_per_image": ["Of the whole device, while the method runs."],
        "flops_pct_minus_paper": ["Of the exact number, not of the rounded one."],
        "flops_pct_rounded": [
            "The backbone's multiply-accumulates alone, rounded as the paper rounds them: what "
            "its column compares with."
        ],
        "object_recall_pct": [
            "Object patches whose final token holds object patches only, as a share of all."
        ],
        "top1_minus_paper": [_PAPERS_DATA[paper_table == "kinetics"]],
    }
    for one in _FURTHER:
        notes |= one.notes(results)
    things = _things(results)
    for key, text in {"clips": clips.NOTES, "questions": questions.NOTES}.get(things, {}).items():
        notes.setdefault(key, []).append(text)
    notes |= {key: [text] for key, text in questions.benchmark_notes(results).items()}
    if any(result.accuracy is not None and result.accuracy["clustered"] for result in results):
        notes["mcnemar_p"] = [
            f"McNemar's exact test takes the {things} as independent; the interval allows for "
            f"{things} that share a source."
        ]
    measured = [result.accuracy for result in results if result.accuracy is not None]
    if unread:
        for key in ("top1_delta_lo", "mcnemar_p"):
            notes.setdefault(key, []).append(_left_out(unread, things))
    if len({record["n"] for record in measured}) > 1:
        notes["n"] = [
            f"Rows differ in n: each leaves out the {things} that it could not {_verb(things)}."
        ]
    pairs = [(b, c.paper_method) for c, b in zip(results, backbones, strict=True) if c.paper_method]
    for key, texts in column_notes(pairs, paper_table).items():
        notes.setdefault(key, []).extend(texts)
    return notes


def _things(results: Sequence[Result]) -> str:
    """What the examples of these rows are called."""
    return (
        "clips"
        if clips.has_clips(results)
        else next((r.things for r in results if r.accuracy is not None), "images")
    )


def _verb(things: str) -> str:
    """What has failed for an example that a row leaves out."""
    return "answer" if things == "questions" else "read"


def _left_out(unread: Mapping[int, str], things: str) -> str:
    names = list(unread.values())
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    count = counted(len(names), things[:-1])
    return (
        f"Without {count} that some row of this table could not {_verb(things)}: "
        f"{', '.join(names[:_NAMED])}{more}."
    )


def _caption(results: Sequence[Result], dense: Mapping[str, Result]) -> tuple[str, ...]:
    records = [record for result in results for record in result.records.values()]
    devices = " and ".join(dict.fromkeys(c.accuracy["device"] for c in results if c.accuracy))
    first = next((one for one in records if "data" in one["identity"]), records[0])
    lines = [f"Data: {first['data']}. Precision: {first['precision']}."]
    lines[0] += f" Accuracy on {devices}." if devices else ""
    for backbone, result in dense.items():
        if result.accuracy is not None and not is_unscored(result):
            low, high = result.accuracy["top1_interval"]
            lines[0] += (
                f" Dense {paper.paper_model(backbone) or backbone}: "
                f"{accuracy_name(result.accuracy)} "
                f"{result.accuracy['top1']:.2f} %, "
                f"95 % interval [{low:.2f}, {high:.2f}]."
            )
    left_out = dict.fromkeys(
        counts_in_words(r["files_left_out"]) for r in records if r.get("files_left_out")
    )
    lines += [f"Left out of the {_things(results)}: {text}." for text in left_out]
    lines += [*clips.caption(results), *questions.caption(results)]
    measured = [c.measured for c in results if c.accuracy is not None and not c.own_weights]
    lines += dict.fromkeys(_pictures(r) for r in measured if r.get("preprocessing_from"))
    settings = dict.fromkeys(_setting(c.throughput) for c in results if c.throughput is not None)
    return (*lines, *settings)


def _pictures(record: Mapping[str, Any]) -> str:
    """The caption's line on a preprocessing that is not the architecture's own."""
    return (
        f"Preprocessing for {paper.paper_model(record['backbone']) or record['backbone']}, not its "
        f"architecture's own but from {record['preprocessing_from']}: "
        f"{prepared(record['identity']['preprocessing'])}."
    )


def _setting(record: Mapping[str, Any]) -> str:
    short = " A short version: an indication, not a measurement." if record["short"] else ""
    return (
        f"Throughput on {record['device_name']}: {record['precision']}, "
        f"batch {record['batch_size']}, {_timed(record)}, "
        f"{record['n_images']} {'frames' if 'clips' in record else 'images'}, "
        f"{record['rounds']} alternating rounds; "
        f"medians and 95 % intervals.{short}"
    )


def _timed(record: Mapping[str, Any]) -> str:
    """The clock and the number of threads, in words."""
    threads = "one thread" if record["threads"] == 1 else f"{record['threads']} threads"
    clock = record.get("clock", "wall")
    return f"{CLOCKS[clock]}{', ' if clock == 'cuda events' else ' of '}{threads}"
