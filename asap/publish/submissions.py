"""Answers for the evaluation servers of benchmarks whose right answers are not public."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asap.records.disk import stem_of, write_file
from asap.report.benchmarks.unscored import is_unscored
from asap.report.benchmarks.values import score_of
from asap.report.result import Result
from asap.tasks.scoring.vqa import normalised


def write_submissions(results: Sequence[Result], folder: Path, title: str) -> list[Path]:
    """A JSON file for each row that a server must score, beside its table."""
    found: list[Path] = []
    for result in results:
        if not (is_unscored(result) and result.has_answers):
            continue
        score = score_of(result)
        assert score is not None
        path = folder / f"{stem_of(f'{title} {result.label}')}-answers.json"
        if path in found:  # rows of one label
            path = path.with_name(f"{str(result.key)[:8]}-{path.name}")
        content = json.dumps(submission(result.answers(), score["name"]), ensure_ascii=False)
        found.append(write_file(path, content + "\n"))
    return found


def submission(answers: pd.DataFrame, benchmark: str) -> list[dict[str, Any]]:
    """What a server expects: answers, normalised as VQA's are, by picture for VizWiz, else by
    question. A question that failed has an empty answer.
    """
    entries: list[dict[str, Any]] = []
    given = answers["error"].isna()
    for path, text, known in zip(answers["path"], answers["text"], given, strict=True):
        image, _, id = path.rpartition("#")
        asked = {"image": image} if benchmark == "vizwiz" else {"question_id": _number(id)}
        entries.append({**asked, "answer": normalised(text) if known else ""})
    return entries


def _number(id: str) -> int | str:
    return int(id) if id.isdecimal() else id
