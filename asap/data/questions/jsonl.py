"""Questions of one's own: a file with one JSON object a line, and a folder of pictures.

    {"id": 1, "image": "val/0001.jpg", "question": "Is there a dog? Answer yes or no.",
     "answers": "yes", "kind": "yes_no", "category": "object", "subset": "random"}

`answers` is a text or a list of texts, `category` (else the kind) and `subset` may be left out. The
question is asked as it is written, with any instruction on how to answer.
"""

import difflib
import json
import logging
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from asap.data.base import DataSet, Transform
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.data.images.source import FileSource, refuse_vanished
from asap.data.options import DataOptions, Opening
from asap.data.questions.kinds import KINDS
from asap.data.questions.question_set import Question, QuestionSet
from asap.errors import RequestError, one_line
from asap.spec.paths import PathText

log = logging.getLogger("asap")
NEEDED = ("id", "image", "question", "answers", "kind")
FIELDS = (*NEEDED, "category", "subset")
_FORMAT = f"expected one JSON object a line, with {', '.join(NEEDED)}"
_SHOWN = 3  # missing pictures in a warning


@dataclass(frozen=True)
class QuestionsOptions(DataOptions):
    """images: the folder that the paths of pictures start from; null: that of the file."""

    images: PathText | None = None

    def open(self, opening: Opening) -> DataSet:
        spec = opening.spec
        if spec.path is None:
            raise RequestError("data.path is missing: give the JSONL file with the questions")
        if spec.cache is not None:
            raise RequestError(
                f"data.cache={spec.cache!r} is not for data=questions: leave it null, a picture is "
                "decoded once for all of its questions"
            )
        file = Path(spec.path)
        folder = file.parent if self.images is None else Path(self.images)
        if not folder.is_dir():
            raise RequestError(f"data.images={folder} is not a folder: give that of the pictures")
        lines = read_lines(file)
        pictures = PictureFiles(folder, list(dict.fromkeys(one.image for one in lines)), file)
        place = {path: i for i, path in enumerate(pictures.paths)}
        questions = [
            Question(o.id, place[o.image], o.text, o.kind, o.answers, o.category, o.subset)
            for o in lines
        ]
        about = f"questions {file.name}, {len(questions):,} questions about {len(place):,} pictures"
        found = QuestionSet(
            questions, pictures, opening.transform, opening.patch_grid,
            name="questions", about=about,
        )  # fmt: skip
        found.title, found.index = spec.title, opening.index
        return found.first(opening.limit)


class PictureFiles:
    """Pictures of a folder as `Pictures`, by relative paths; those that are missing are named.

    RequestError, about the file that lists them, if none of them is there.
    """

    has_masks = False

    def __init__(self, folder: Path, paths: Sequence[str], listed: Path):
        # Not Path.is_file(), which raises for names that no file can have.
        there = [path if os.path.isfile(folder / path) else None for path in paths]  # noqa: PTH113
        missing = [path for path, file in zip(paths, there, strict=True) if file is None]
        some = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        if len(missing) == len(paths):
            raise RequestError(
                f"none of the {len(paths):,} pictures of {listed} is in {folder} ({some}): give "
                "their folder with data.images=<folder>"
            )
        if missing:
            log.warning(
                "%s: %d of %d pictures are missing in %s: %s",
                listed.name, len(missing), len(paths), folder, some,
            )  # fmt: skip
        self.source = FileSource(folder, there, paths, [0] * len(paths))

    @property
    def paths(self) -> Sequence[str]:
        return self.source.paths

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        return self.source.hashes(positions, index)

    def open(self, i: int, transform: Transform) -> Image.Image:
        try:
            return open_rgb(self.source.read(i), transform)
        except UnreadableImage:
            refuse_vanished(self.source, i)
            raise

    def mask(self, i: int) -> None:
        return None


@dataclass(frozen=True)
class Line:
    """A line of the file, see `Question`; image: the path of its picture; number: from 1."""

    number: int
    id: str
    image: str
    text: str
    kind: str
    answers: tuple[str, ...]
    category: str
    subset: str


def read_lines(file: Path) -> list[Line]:
    """The questions of a file.

    Raises RequestError, with the number of the line, on a line that is no question, an unknown
    field or kind, an answer that its kind cannot have, a path that leaves the folder of pictures,
    and an id that occurs twice.
    """
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise RequestError(f"data.path={file} cannot be read ({reason}): {_FORMAT}") from None
    found = list(_lines(content, file))
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


def _lines(content: str, file: Path) -> Iterator[Line]:
    # Not splitlines(), which also ends lines at signs that JSON allows inside a text.
    for number, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        where = f"line {number} of {file}"
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where} is not JSON ({one_line(error)}): {_FORMAT}") from None
        if not isinstance(given, dict):
            raise RequestError(f"{where} is {text.strip()[:60]!r}: {_FORMAT}")
        yield _line(given, number, where)


def _line(given: dict[str, Any], number: int, where: str) -> Line:
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
    kind = _text(given["kind"], "kind", where)
    if kind not in KINDS:
        raise RequestError(f"{where} has kind={kind!r}: use one of {', '.join(KINDS)}")
    number_or_text = given["id"]
    if isinstance(number_or_text, int) and not isinstance(number_or_text, bool):
        number_or_text = str(number_or_text)
    return Line(
        number,
        _name(number_or_text, "id", where),
        _path(_text(given["image"], "image", where), where),
        _text(given["question"], "question", where),
        kind,
        _answers(given["answers"], kind, where),
        kind if given.get("category") is None else _name(given["category"], "category", where),
        _subset(given.get("subset"), where),
    )


def _subset(value: Any, where: str) -> str:
    """The name of a subset; null and an empty text: it is of none."""
    if value is None or value == "":
        return ""
    if value == "all":
        raise RequestError(f"{where} has subset='all', the name of all subsets: leave it out")
    return _name(value, "subset", where)


def _text(value: Any, name: str, where: str) -> str:
    """The text of a field; RequestError if it is none, or says nothing."""
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where} has {name}={value!r}: give a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{where} has half a sign in {name}: write it as UTF-8") from None
    return value


def _name(value: Any, name: str, where: str) -> str:
    """The text of a field that tables show."""
    text = _text(value, name, where)
    if not text.isprintable():
        raise RequestError(f"{where} has {name}={value!r}: give one line of text")
    return text


def _path(image: str, where: str) -> str:
    path = posixpath.normpath(image)
    if path.startswith(("/", "~")) or path.split("/")[0] in ("..", ".") or "\0" in path:
        raise RequestError(
            f"{where} has image={image!r}: give a path below the folder of pictures, which is "
            "that of the file or data.images"
        )
    return path


def _answers(value: Any, kind: str, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RequestError(f"{where} has answers={value!r}: give a text or a list of texts")
    try:
        return KINDS[kind].read([_text(one, "answers", where) for one in texts])
    except ValueError as reason:
        raise RequestError(
            f"{where} has answers={value!r}, which kind={kind} cannot have: {reason}"
        ) from None
