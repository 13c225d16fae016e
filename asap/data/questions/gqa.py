"""GQA (Hudson and Manning 2019), the balanced questions of test-dev.

llava_gqa_testdev_balanced.jsonl           LLaVA's questions; may be missing
data/testdev_balanced_questions.json       questions and answers
data/images/                               pictures
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.asked import Asked
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.benchmark_files import (
    SHORT,
    BenchmarkOptions,
    first_file,
    optional_file,
)
from asap.data.questions.json_files import by_name, document, entry
from asap.data.questions.llava_questions import LlavaTexts
from asap.data.questions.picture_files import picture_path

_FILE = "testdev_balanced_questions.json"
_BELOW = ("data/questions1.2/", "data/questions/", "questions1.2/", "questions/")
_EXPECTED = "expected GQA's file, a JSON object of questions with imageId, question and answer"
GQA = Benchmark("gqa", "test-dev balanced", "accuracy, in %", "mean", 12_578)


@dataclass(frozen=True)
class GqaOptions(BenchmarkOptions):
    """GQA has no options but those of all benchmarks."""

    folders: ClassVar = ("gqa",)
    holds: ClassVar = f"data/{_FILE} and data/images"
    pictures: ClassVar = ("data/images", "images", "data/gqa/images")

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        names = [f"data/{_FILE}", _FILE, *(f"{b}{_FILE}" for b in _BELOW)]
        file = first_file(folder, names, "it is in GQA's questions1.2.zip")
        texts = LlavaTexts(
            optional_file(folder, ["llava_gqa_testdev_balanced.jsonl"]), lambda one: one.id
        )
        found = by_name(document(file, _EXPECTED), file, _EXPECTED)
        asked = [self._asked(*one, texts) for one in found]
        texts.check(file)
        return self.opened(asked, self.picture_files(folder, file), opening, GQA)

    def _asked(self, id: str, where: str, given: dict[str, Any], texts: LlavaTexts) -> Asked:
        text, complete = texts.of(id, entry(given, "question", where), where)
        return Asked(
            id,
            picture_path(f"{entry(given, 'imageId', where)}.jpg", where),
            self.worded(text, SHORT, complete),
            "exact",
            (entry(given, "answer", where),),
            "gqa",
            "",
        )
