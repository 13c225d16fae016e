"""POPE (Li et al. 2023): is an object in the picture? Random, popular and adversarial objects.

    llava_pope_test.jsonl    LLaVA's questions; may be missing
    coco/coco_pope_random.json  coco_pope_popular.json  coco_pope_adversarial.json
    val2014/                 pictures of MS COCO

Newer official files have 3,000 random questions, those that LLaVA asks 2,910.
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
    refuse_twice,
    right_answers,
)
from asap.data.questions.json_files import entry, name_of, objects
from asap.data.questions.llava_questions import LlavaTexts
from asap.data.questions.picture_files import picture_path

SUBSETS = ("random", "popular", "adversarial")
_EXPECTED = "expected POPE's file, a JSON object a line with question_id, image, text and label"
POPE = Benchmark("pope", "test", "mean of the subsets' F1, in %", "mean_f1", 8_910)


@dataclass(frozen=True)
class PopeOptions(BenchmarkOptions):
    """POPE has no options but those of all benchmarks."""

    folders: ClassVar = ("pope",)
    holds: ClassVar = "coco/coco_pope_random.json, _popular and _adversarial, and val2014"
    pictures: ClassVar = ("val2014", "coco/val2014", "images", "../coco/val2014")

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        texts = LlavaTexts(
            optional_file(folder, ["llava_pope_test.jsonl"]),
            lambda one: (one.category, one.image, one.text.partition("\n")[0]),
        )
        asked: list[Asked] = []
        for subset in SUBSETS:
            names = [f"{below}coco_pope_{subset}.json" for below in ("coco/", "", "output/coco/")]
            file = first_file(folder, names, "get POPE's output/coco of the three")
            found = [self._asked(*one, subset, texts) for one in objects(file, _EXPECTED)]
            refuse_twice(found, file)
            asked += found
        texts.check(folder)
        return self.opened(asked, self.picture_files(folder, folder), opening, POPE)

    def _asked(self, where: str, given: dict[str, Any], subset: str, texts: LlavaTexts) -> Asked:
        image = picture_path(entry(given, "image", where), where)
        text = entry(given, "text", where)
        text, complete = texts.of((subset, image, text), text, where)
        return Asked(
            f"{subset}-{name_of(given.get('question_id'), 'question_id', where)}",
            image,
            self.worded(text, SHORT, complete),
            "yes_no",
            right_answers("yes_no", [entry(given, "label", where)], where),
            "pope",
            subset,
        )
