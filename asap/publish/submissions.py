"""Answers for the evaluation servers of benchmarks whose right answers are not public."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asap.data.open import options_of
from asap.data.questions.vqav2 import Vqav2Options
from asap.records.disk import stem_of, write_file
from asap.report.benchmarks.unscored import is_unscored
from asap.report.benchmarks.values import score_of
from asap.report.result import Result
from asap.spec.run_spec import DataSpec
from asap.tasks.scoring.vqa import normalised


def write_submissions(
    results: Sequence[Result], folder: Path, title: str, data: DataSpec
) -> list[Path]:
    """A JSON file for each row that a server must score, beside its table.

    data: what was asked. VQAv2's server wants all questions of test2015: those that were not asked
    have empty answers, as in LLaVA's script.
    """
    found: list[Path] = []
    ids = _all_ids(data) if any(map(is_unscored, results)) else []
    for result in results:
        if not (is_unscored(result) and result.has_answers):
            continue
        score = score_of(result)
        assert score is not None
        path = folder / f"{stem_of(f'{title} {result.label}')}-answers.json"
        if path in found:  # rows of one label
            path = path.with_name(f"{str(result.key)[:8]}-{path.name}")
        entries = submission(result.answers(), score["name"], ids)
        content = json.dumps(entries, ensure_ascii=False)
        found.append(write_file(path, content + "\n"))
    return found


def submission(
    answers: pd.DataFrame, benchmark: str, ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What a server expects: answers, normalised as VQA's are, by picture for VizWiz, else by
    question. A question that failed has an empty answer, and so has one of `ids` that was not
    asked; these stand in the order of `ids`.
    """
    entries: list[dict[str, Any]] = []
    given = answers["error"].isna()
    for path, text, known in zip(answers["path"], answers["text"], given, strict=True):
        image, _, id = path.rpartition("#")
        asked = {"image": image} if benchmark == "vizwiz" else {"question_id": _number(id)}
        entries.append({**asked, "answer": normalised(text) if known else ""})
    if not ids:
        return entries
    known = {entry["question_id"]: entry for entry in entries}
    every = dict.fromkeys([*map(_number, ids), *known])
    return [known.get(id, {"question_id": id, "answer": ""}) for id in every]


def _all_ids(data: DataSpec) -> list[str]:
    options = options_of(data)
    return options.ids_of_test(data) if isinstance(options, Vqav2Options) else []


def _number(id: str) -> int | str:
    return int(id) if id.isdecimal() else id
