"""VizWiz (Gurari et al. 2018): questions of blind people about pictures that they took.

    llava_test.jsonl    LLaVA's questions of test; may be missing
    test.json  val.json questions, those of val with answers
    test/  val/         pictures

The answers of test are not public: a server scores them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.asked import Asked
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.benchmark_files import (
    SHORT,
    SplitOptions,
    first_file,
    optional_file,
    refuse_twice,
)
from asap.data.questions.json_files import entry, objects, whole_text
from asap.data.questions.llava_questions import llava_questions
from asap.data.questions.picture_files import picture_path
from asap.data.questions.vqa_answers import annotators

USUAL = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}"
_EXPECTED = "expected VizWiz's file, a JSON list with image and question"
_METRIC = "VQA accuracy, in %"
VIZWIZ = {
    "val": Benchmark("vizwiz", "val", _METRIC, "answerable", 4_319),
    "test": Benchmark("vizwiz", "test", _METRIC, "answerable", 8_000, answers_public=False),
}


@dataclass(frozen=True)
class VizWizOptions(SplitOptions):
    """VizWiz has no options but its split and those of all benchmarks."""

    splits: ClassVar = ("test", "val")
    folders: ClassVar = ("vizwiz",)
    holds: ClassVar = "val.json and val, or llava_test.jsonl and test"

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        val = optional_file(folder, ["val.json", "Annotations/val.json"])
        split = self.split
        if split is None:
            split = "test" if val is None else "val"
        if split == "val":
            names = ["val.json", "Annotations/val.json"]
        else:
            names = ["llava_test.jsonl", "test.json", "Annotations/test.json"]
        file = first_file(folder, names, "get VizWiz's Annotations.zip")
        if file.name == "llava_test.jsonl":
            asked = self._as_llava_asks(file)
        else:
            asked = [self._asked(*one, split) for one in objects(file, _EXPECTED)]
        refuse_twice(asked, file)
        pictures = self.picture_files(folder, file, (split, f"images/{split}", "images"))
        return self.opened(asked, pictures, opening, VIZWIZ[split])

    def _as_llava_asks(self, file: Path) -> list[Asked]:
        return [
            _of_test(one.image, self.worded(one.text, USUAL, complete=True))
            for one in llava_questions(file)
        ]

    def _asked(self, where: str, given: dict[str, Any], split: str) -> Asked:
        image = picture_path(entry(given, "image", where), where)
        question = entry(given, "question", where, object)
        text = self.worded(whole_text(question, "question", where), USUAL, complete=False)
        if split == "test":
            return _of_test(image, text)
        group = "answerable" if entry(given, "answerable", where, int) else "unanswerable"
        return Asked(
            Path(image).stem, image, text, "vqa", annotators(given, where), "vizwiz", group
        )


def _of_test(image: str, text: str) -> Asked:
    return Asked(Path(image).stem, image, text, "unscored", (), "vizwiz", "")
