"""LLaVA's question files of benchmarks: one JSON object a line, without the right answers.

{"question_id": 1, "image": "a.jpg", "text": "Is it?\\nAnswer ...", "category": "default"}
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from asap.data.questions.json_files import entry, name_of, objects, shown
from asap.data.questions.picture_files import picture_path
from asap.errors import RequestError

log = logging.getLogger("asap")
EXPECTED = "expected LLaVA's question file, a JSON object a line with question_id, image and text"


@dataclass(frozen=True)
class LlavaQuestion:
    """A line of the file; text: with LLaVA's instruction; where: its place, for errors."""

    id: str
    image: str
    text: str
    category: str
    where: str


def llava_questions(file: Path) -> list[LlavaQuestion]:
    """The questions of a file. RequestError, with the line, on what is no question."""
    return [
        LlavaQuestion(
            name_of(given.get("question_id"), "question_id", where),
            picture_path(entry(given, "image", where), where),
            entry(given, "text", where),
            str(given.get("category", "default")),
            where,
        )
        for where, given in objects(file, EXPECTED)
    ]


class LlavaTexts:
    """LLaVA's texts of the questions of an official file.

    file: LLaVA's question file, None if there is none; key: what a question is found by; read:
    how the file is read.
    """

    def __init__(
        self,
        file: Path | None,
        key: Callable[[LlavaQuestion], Hashable],
        read: Callable[[Path], list[LlavaQuestion]] = llava_questions,
    ):
        self.file = file
        self._texts = {} if file is None else {key(one): one for one in read(file)}
        self._left = dict(self._texts)
        self._reworded: list[str] = []

    def of(self, key: Hashable, official: str, where: str) -> tuple[str, bool]:
        """What is asked, and whether an instruction is in it: the official text is without one.

        RequestError, about the place of the official question, if LLaVA's file does not ask it.
        """
        if self.file is None:
            return official, False
        if key not in self._texts:
            raise self._other_version(f"{where} asks what it does not: {shown(official)}")
        self._left.pop(key, None)
        text = self._texts[key].text
        if "".join(official.split()) not in "".join(text.split()):
            self._reworded.append(where)
        return text, True

    def check(self, official: Path) -> None:
        """RequestError if LLaVA's file asks more than was found in the official one; a warning if
        it has other words for what is found by an id.
        """
        if self._left:
            more = next(iter(self._left.values()))
            raise self._other_version(f"{official} has not what {more.where} asks")
        if self._reworded:
            log.warning(
                "%s has other words than %s for %s of %s questions, first %s; its own are asked",
                self.file, official.name, f"{len(self._reworded):,}", f"{len(self._texts):,}",
                self._reworded[0],
            )  # fmt: skip

    def _other_version(self, what: str) -> RequestError:
        assert self.file is not None
        return RequestError(
            f"{self.file} is for another version of the questions: {what}: take the official files "
            f"that LLaVA's docs/Evaluation.md links, or remove {self.file.name} to ask theirs"
        )
