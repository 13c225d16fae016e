"""What a table says of questions about pictures: scores by category, the rows that enter the
language model, and what each part of the model costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asap.errors import counted
from asap.report.benchmarks import values as benchmarks
from asap.report.benchmarks.named import named
from asap.report.benchmarks.numbers import NUMBERS
from asap.report.beside import PUBLISHED_SCORES
from asap.report.columns import (
    COST,
    PAIRED,
    SPEED,
    Text,
    Values,
    number,
    value_column,
    with_interval,
)
from asap.report.result import Result
from asap.report.table import Table, TableColumn, TableRow

SCORES, ROWS = "right, in %", "rows and cost per question"
OF_PARTS = "parts of the benchmark's number"
NOTES = {
    "infer_gmacs": "Of a question: tower, projector and the prefill of the language model, which "
    "all questions of a picture take anew.",
    "mcnemar_c": "Wrong without a reduction, right with it; of answers that may be right in part "
    "those that score more.",
    "mcnemar_b": "Right without a reduction, wrong with it.",
    "average": "Mean over the categories.",
    "relative": "The mean over the categories, in % of the unreduced model's.",
    "visual_rows": "Rows of a picture that are sent to the language model.",
    "layer_visual_rows": "Rows of the picture, or made of them, that enter a layer of the language "
    "model: mean over its layers.",
    "kv_mib": "Cached keys and values after the prefill, MiB.",
    "object_recall_pct": "Of the rows that are left in the last layer of the language model.",
}
_PARTS = ("tower", "projector", "prefill", "vision_method", "language_method")
_CROPS = {  # by backbone.preprocess.anyres
    "fixed": "Every picture is read as the whole of it and 2 x 2 crops, with their padding and "
    "without newline rows (anyres=fixed).",
    "native": "Every picture is read as the whole of it and LLaVA-NeXT's own crops; one that is "
    "not reduced without their padding, with newline rows (anyres=native).",
}


def has_questions(results: Sequence[Result]) -> bool:
    """Whether the examples of these rows are questions."""
    return any(_about(result) is not None for result in results)


def values_of(about: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a `QuestionsRecord` by name; those that are not known are left out."""
    found: dict[str, float | None] = {}
    for name, share in about["categories"].items():
        found |= {f"score_{name}": share["score"], f"n_{name}": share["n"]}
        found |= {f"score_{name}_{end}": share[end] for end in ("lo", "hi")}
    for category, groups in about["yes_no"].items():
        for subset, said in groups.items():
            name = category if subset == "all" else f"{category}_{subset}"
            found |= {f"{key}_{name}": said[key] for key in ("accuracy", "f1", "yes_share")}
            found |= {f"f1_{name}_{end}": said[end] for end in ("lo", "hi")}
            found |= {f"{key}_{name}": said[key] for key in ("precision", "recall")}
            found[f"labels_yes_share_{name}"] = said["labels_yes_share"]
    names = ("average", "pictures", "n_cut", "n_empty", "visual_rows", "prompt_rows", "kv_mib")
    found |= {name: about[name] for name in names}
    found |= {f"gmacs_{part}": about[f"gmacs_{part}"] for part in _PARTS}
    if (benchmark := about.get("benchmark")) is not None:
        found |= benchmarks.values_of(benchmark)
    layers = about["layer_rows"]
    found["layer_visual_rows"] = sum(layers) / len(layers) - about["prompt_rows"]
    return {name: value for name, value in found.items() if value is not None}


def with_columns(
    shown: Sequence[TableColumn], results: Sequence[Result]
) -> tuple[TableColumn, ...]:
    """The columns of a table of questions: those `shown`, and what only questions have."""
    scored = _benchmarks(results)
    titles = {named(one["name"]).title for one in scored}
    shown = [c for c in shown if c.group not in PUBLISHED_SCORES or c.group in titles]
    behind = next(i for i, column in enumerate(shown, start=1) if "mcnemar_p" in column.keys)
    return (
        *shown[:behind],
        value_column("cor-\nrected", PAIRED, "mcnemar_c", ""),
        value_column("cor-\nrupted", PAIRED, "mcnemar_b", ""),
        *shown[behind:],
        *(column for one in scored for column in _of_benchmark(one)),
        *(column for name in _categories(results) for column in _of_category(name, results)),
        *([value_column("Avg", SCORES, "average", ".2f")] if _several(results) else []),
        value_column("Rel\n(%)", SCORES, "relative", ".1f"),
        value_column("visual\nrows", ROWS, "visual_rows", ".1f"),
        value_column("in a\nlayer", ROWS, "layer_visual_rows", ".1f"),
        TableColumn("GMACs of\nthe tower", ROWS, *_of_full("gmacs_tower")),
        value_column("projector", ROWS, "gmacs_projector", ".4g"),
        TableColumn("prefill", ROWS, *_of_full("gmacs_prefill")),
        TableColumn("KV cache\n(MiB)", ROWS, *_of_full("kv_mib")),
    )


def csv_keys(results: Sequence[Result]) -> list[str]:
    """All names of `values_of`, and those of the paper's numbers of a benchmark, for the CSV."""
    found = [values_of(about) for result in results if (about := _about(result)) is not None]
    columns = [named(one["name"]).column for one in _benchmarks(results)]
    more = [key for c in columns for key in (f"paper_{c}", f"{c}_minus_paper")]
    return list(dict.fromkeys([*(name for values in found for name in values), *more]))


def add_questions(row: TableRow, result: Result, dense: Result | None) -> None:
    """Add the values of `columns` to a row; dense: the unreduced row."""
    if (about := _about(result)) is None:
        return
    row.values |= values_of(about)
    if n := about["n_cut"]:
        cut = counted(n, "answer was", "answers were")
        row.note(f"{cut} cut at the limit of new tokens.", "method")
    if n := about["n_empty"]:
        row.note(f"{counted(n, 'answer is', 'answers are')} empty.", "method")
    full = None if dense is None else _about(dense)
    if full is None:
        reason = "There is no record without a reduction to compare with."
        row.note(reason, "relative")
        return
    for name in ("gmacs_tower", "gmacs_prefill", "kv_mib"):
        row.values[f"{name}_pct"] = 100 * about[name] / full[name]
    own, base = ({k: v["n"] for k, v in one["categories"].items()} for one in (about, full))
    if own != base:
        row.note("Its categories do not have the questions of the unreduced row.", "relative")
    elif full["average"]:
        row.values["relative"] = 100 * about["average"] / full["average"]


def caption(results: Sequence[Result]) -> list[str]:
    """Lines on how many questions about how many pictures, and on crops of pictures."""
    found = [about for result in results if (about := _about(result)) is not None]
    return [*dict.fromkeys(map(_asked, found)), *crops_of(results)]


def crops_of(results: Sequence[Result]) -> list[str]:
    """A line on how pictures are cut into crops; empty for a model that does not."""
    records = [result.accuracy for result in results if result.accuracy is not None]
    modes = [one["identity"].get("preprocessing", {}).get("anyres") for one in records]
    return [_CROPS[mode] for mode in dict.fromkeys(modes) if mode is not None]


def _asked(about: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{share['n']:,} {name}" for name, share in about["categories"].items())
    return f"Questions about {counted(about['pictures'], 'picture')}: {counts}."


def worded(table: Table) -> Table:
    """A part of a table of questions, without the columns of speeds, which have no measurement."""
    groups = {COST: "cost per question", PAIRED: "against full, paired"}
    titles = {"missed\nimages (%)": "missed\npictures (%)", "final\ntokens": "tokens out\nof tower"}
    kept = (c for c in table.columns if c.group != SPEED and "throughput_pct" not in c.keys)
    return replace(
        table,
        columns=tuple(
            replace(c, group=groups.get(c.group, c.group), title=titles.get(c.title, c.title))
            for c in kept
        ),
    )


def _about(result: Result) -> Mapping[str, Any] | None:
    return None if result.accuracy is None else result.accuracy.get("questions")


def benchmark_notes(results: Sequence[Result]) -> dict[str, str]:
    """What the numbers of benchmarks are, by the key of their column."""
    return {
        named(
            one["name"]
        ).column: f"{one['metric'][:1].upper()}{one['metric'][1:]}; {one['n']:,} questions "
        f"({one['split']})."
        for one in _benchmarks(results)
    }


def _benchmarks(results: Sequence[Result]) -> list[Mapping[str, Any]]:
    """The numbers of each benchmark, of the first row that has it."""
    abouts = [about for result in results if (about := _about(result)) is not None]
    found = [about["benchmark"] for about in abouts if about.get("benchmark") is not None]
    return list({one["name"]: one for one in reversed(found)}.values())


def _of_benchmark(score: Mapping[str, Any]) -> list[TableColumn]:
    """A benchmark's number, and the parts that it is made of."""
    one = named(score["name"])
    keys = (one.column, f"{one.column}_lo", f"{one.column}_hi")
    of_parts = [(part, benchmarks.part_key(one.column, part)) for part in score["parts"]]
    delta = benchmarks.delta_keys(score["name"])
    change = TableColumn(f"Δ {one.title},\n95 % interval", SCORES, delta, with_interval(*delta))
    return [
        TableColumn(one.title, SCORES, keys, benchmarks.shown(one)),
        *([change] if score["name"] in NUMBERS else []),
        *(value_column(part, OF_PARTS, key, ".2f") for part, key in of_parts),
    ]


def _categories(results: Sequence[Result]) -> list[str]:
    """Those of the rows; none where a benchmark's only category has the benchmark's own number."""
    abouts = [about for result in results if (about := _about(result)) is not None]
    if all(map(_is_one, abouts)):
        return []
    return list(dict.fromkeys(name for about in abouts for name in about["categories"]))


def _several(results: Sequence[Result]) -> bool:
    """Whether a row has several categories to average."""
    abouts = [about for result in results if (about := _about(result)) is not None]
    return any(len(about["categories"]) > 1 for about in abouts)


def _is_one(about: Mapping[str, Any]) -> bool:
    """Whether the only category has the number of the benchmark, or neither has one."""
    score, categories = about.get("benchmark"), list(about["categories"].values())
    if score is None or len(categories) > 1:
        return False
    return score["status"] != "scored" or score["score"] == categories[0]["score"]


def _of_category(name: str, results: Sequence[Result]) -> list[TableColumn]:
    """Its score; of yes and no also F1 and the share of yes. Where some category has subsets, as
    POPE has, only of those that have.
    """
    keys = (f"score_{name}", f"score_{name}_lo", f"score_{name}_hi")
    found = [TableColumn(name, SCORES, keys, number(keys[0], ".2f"))]
    asked = [about["yes_no"] for r in results if (about := _about(r)) is not None]
    divided = {category for one in asked for category, groups in one.items() if len(groups) > 1}
    if name in (divided or {category for one in asked for category in one}):
        f1 = (f"f1_{name}", f"f1_{name}_lo", f"f1_{name}_hi")
        yes = (f"yes_share_{name}", f"labels_yes_share_{name}")
        found.append(TableColumn(f"{name}\nF1", SCORES, f1, number(f1[0], ".2f")))
        found.append(TableColumn("says\nyes (%)", SCORES, yes, number(yes[0], ".1f")))
    return found


def _of_full(key: str) -> tuple[tuple[str, str], Text]:
    """Keys and text of a cost with its share of the unreduced row's."""
    share = f"{key}_pct"

    def text(values: Values) -> str | None:
        if values.get(key) is None:
            return None
        more = values.get(share)
        said = "" if more is None or values.get("dense") else f" ({more:.1f} %)"
        return f"{values[key]:.4g}{said}"

    return (key, share), text
