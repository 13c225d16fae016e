"""Questions of one's own: a file with one JSON object a line, and a folder of pictures.

    {"id": 1, "image": "val/0001.jpg", "question": "Is there a dog? Answer yes or no.",
     "answers": "yes", "kind": "yes_no", "category": "object", "subset": "random"}

`answers` is a text or a list of texts, `category` (else the kind) and `subset` may be left out. The
question is asked as it is written, with any instruction on how to answer.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asap.data.base import DataSet
from asap.data.options import DataOptions, Opening
from asap.data.questions.asked import Asked, question_set, refuse_cache
from asap.data.questions.json_files import content_of, json_lines, name_of, text_of
from asap.data.questions.kinds import KINDS
from asap.data.questions.picture_files import PictureFiles, picture_path
from asap.errors import RequestError
from asap.spec.paths import PathText

NEEDED = ("id", "image", "question", "answers", "kind")
FIELDS = (*NEEDED, "category", "subset")
_FORMAT = f"expected one JSON object a line, with {', '.join(NEEDED)}"


@dataclass(frozen=True)
class QuestionsOptions(DataOptions):
    """images: the folder that the paths of pictures start from; null: that of the file."""

    images: PathText | None = None

    def open(self, opening: Opening) -> DataSet:
        spec = opening.spec
        if spec.path is None:
            raise RequestError("data.path is missing: give the JSONL file with the questions")
        refuse_cache(spec)
        file = Path(spec.path)
        folder = file.parent if self.images is None else Path(self.images)
        if not folder.is_dir():
            raise RequestError(f"data.images={folder} is not a folder: give that of the pictures")
        return question_set(
            read_lines(file),
            lambda paths: PictureFiles(folder, paths, file),
            opening,
            f"questions {file.name}",
        )


@dataclass(frozen=True)
class Line(Asked):
    """A question of the file; number: of its line, from 1."""

    number: int


def read_lines(file: Path) -> list[Line]:
    """The questions of a file.

    Raises RequestError, with the number of the line, on a line that is no question, an unknown
    field or kind, an answer that its kind cannot have, a path that leaves the folder of pictures,
    and an id that occurs twice.
    """
    content = content_of(file, _FORMAT, f"data.path={file}")
    found = [_line(*one) for one in json_lines(content, file, _FORMAT)]
    if not found:
        raise RequestError(f"data.path={file} has no question: {_FORMAT}")
    first: dict[str, int] = {}
    for one in found:
        if (before := first.setdefault(one.id, one.number)) != one.number:
            raise RequestError(
                f"{file} has the id {one.id!r} twice, in lines {before} and {one.number}: give "
                "each question an id of its own"
            )
    return found


def _line(number: int, where: str, given: dict[str, Any]) -> Line:
    for name in given:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise RequestError(
                f"{where} has the unknown field {name!r}{hint} (fields: {', '.join(FIELDS)})"
            )
    for name in NEEDED:
        if name not in given:
            raise RequestError(f"{where} has no field {name!r}: {_FORMAT}")
    kind = text_of(given["kind"], "kind", where)
    if kind not in KINDS:
        raise RequestError(f"{where} has kind={kind!r}: use one of {', '.join(KINDS)}")
    return Line(
        name_of(given["id"], "id", where),
        picture_path(text_of(given["image"], "image", where), where),
        text_of(given["question"], "question", where),
        kind,
        _answers(given["answers"], kind, where),
        kind if given.get("category") is None else _one_line(given["category"], "category", where),
        _subset(given.get("subset"), where),
        number,
    )


def _subset(value: Any, where: str) -> str:
    """The name of a subset; null and an empty text: it is of none."""
    if value is None or value == "":
        return ""
    if value == "all":
        raise RequestError(f"{where} has subset='all', the name of all subsets: leave it out")
    return _one_line(value, "subset", where)


def _one_line(value: Any, name: str, where: str) -> str:
    return name_of(text_of(value, name, where), name, where)


def _answers(value: Any, kind: str, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RequestError(f"{where} has answers={value!r}: give a text or a list of texts")
    try:
        return KINDS[kind].read([text_of(one, "answers", where) for one in texts])
    except ValueError as reason:
        raise RequestError(
            f"{where} has answers={value!r}, which kind={kind} cannot have: {reason}"
        ) from None
