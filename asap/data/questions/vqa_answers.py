"""What the annotators of a question answered, in the files of VQA and VizWiz."""

from collections.abc import Mapping
from typing import Any

from asap.data.questions.benchmark_files import right_answers
from asap.data.questions.json_files import entry, shown, whole_text
from asap.errors import RequestError


def annotators(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Their answers, one of each. RequestError if there are none or too few."""
    said = []
    for one in entry(given, "answers", where, list):
        answer = one.get("answer") if isinstance(one, dict) else None
        if not isinstance(answer, str):
            raise RequestError(f"{where} has the answer {shown(one)}: download the file again")
        said.append(whole_text(answer, "answers", where))
    return right_answers("vqa", said, where)
