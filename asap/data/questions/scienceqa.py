"""ScienceQA (Lu et al. 2022): the questions that have a picture.

    llava_test_CQM-A.json        LLaVA's questions; may be missing
    problems.json  pid_splits.json
    images/test/<problem>/image.png

A question is asked with its hint as context and its lettered options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.asked import Asked
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.benchmark_files import (
    LETTER,
    SplitOptions,
    first_file,
    lettered,
    optional_file,
    refuse_twice,
)
from asap.data.questions.json_files import by_name, document, entry, name_of, objects, text_of
from asap.data.questions.llava_questions import LlavaQuestion, LlavaTexts
from asap.data.questions.picture_files import picture_path
from asap.errors import RequestError

LETTERS = "ABCDE"
_METRIC = "accuracy on the questions with a picture, in %"
_TEST = 2_017  # of the 4,241 questions of the split, those with a picture
_EXPECTED = "expected ScienceQA's file, a JSON object of problems with question, choices and answer"
_SPLIT = "expected ScienceQA's file, a JSON object with a list of problems for each split"
_LLAVA = "expected LLaVA's question file, a JSON list of id and conversations"


@dataclass(frozen=True)
class ScienceQaOptions(SplitOptions):
    """ScienceQA has no options but its split, both of which have answers, and those of all
    benchmarks.
    """

    split: str = "test"
    splits: ClassVar = ("test", "val")
    folders: ClassVar = ("scienceqa", "sqa", "science_qa")
    holds: ClassVar = "problems.json, pid_splits.json and images/test"

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        where = "get data/scienceqa of ScienceQA's repository"
        file = first_file(folder, ["problems.json", "data/scienceqa/problems.json"], where)
        splits = first_file(file.parent, ["pid_splits.json"], where)
        found = by_name(document(file, _EXPECTED), file, _EXPECTED)
        problems = {name: (where, given) for name, where, given in found}
        llava = ["llava_test_CQM-A.json"] if self.split == "test" else []
        texts = LlavaTexts(optional_file(folder, llava), lambda one: one.id, _llava_questions)
        asked = []
        for name in self._names(splits):
            if name not in problems:
                raise RequestError(f"{splits} has the problem {name!r}, which {file} has not")
            place, given = problems[name]
            if given.get("image"):
                asked.append(self._asked(name, place, given, texts))
        refuse_twice(asked, splits)
        texts.check(file)
        about = Benchmark(
            "scienceqa", self.split, _METRIC, "mean",
            _TEST if self.split == "test" else None, max_new_tokens=1_024,
        )  # fmt: skip
        names = f"images/{self.split}", self.split, "images"
        beside = [str(file.parent.relative_to(folder) / name) for name in names]
        places = tuple(dict.fromkeys([*beside, *names]))  # beside the file, or in the folder
        return self.opened(asked, self.picture_files(folder, file, places), opening, about)

    def _names(self, file: Path) -> list[str]:
        """The problems of the split."""
        found = document(file, _SPLIT)
        listed = found.get(self.split) if isinstance(found, dict) else None
        if not isinstance(listed, list) or not listed:
            raise RequestError(f"{file} has no split {self.split!r}: {_SPLIT}")
        return [name_of(one, self.split, str(file)) for one in listed]

    def _asked(self, name: str, where: str, given: dict[str, Any], texts: LlavaTexts) -> Asked:
        choices, right = entry(given, "choices", where, list), entry(given, "answer", where, int)
        if not 0 <= right < len(choices) <= len(LETTERS):
            raise RequestError(f"{where} has answer={right} of {len(choices)} choices")
        text, _ = texts.of(name, _official(given, choices, where), where)
        return Asked(
            name,
            picture_path(f"{name}/{entry(given, 'image', where)}", where),
            self.worded(text, LETTER, complete=False),
            "scienceqa",
            (LETTERS[right],),
            "scienceqa",
            "",
        )


def _official(given: dict[str, Any], choices: Sequence[Any], where: str) -> str:
    """A question as LLaVA's file has it."""
    hint = str(given.get("hint") or "").strip()
    context = [f"Context: {hint}"] if hint else []
    options = [text_of(one, "choices", where) for one in choices]
    return "\n".join((*context, entry(given, "question", where), *lettered(options)))


def _llava_questions(file: Path) -> list[LlavaQuestion]:
    """The questions of LLaVA's file that have a picture, without the mark of its place."""
    found = []
    for where, given in objects(file, _LLAVA):
        if "image" not in given:
            continue
        turns = entry(given, "conversations", where, list)
        if not turns or not isinstance(turns[0], dict):
            raise RequestError(f"{where} has no conversation: {_LLAVA}")
        text = entry(turns[0], "value", where).replace("<image>", "").strip()
        image = picture_path(entry(given, "image", where), where)
        found.append(LlavaQuestion(name_of(given.get("id"), "id", where), image, text, "", where))
    return found
