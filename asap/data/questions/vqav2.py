"""VQAv2 (Goyal et al. 2017): questions about pictures of MS COCO.

    llava_vqav2_mscoco_test-dev2015.jsonl         LLaVA's questions of test-dev, and
    test2015/                                     their pictures
    llava_vqav2_mscoco_test2015.jsonl             all of test, as its server wants; may be missing
    v2_OpenEnded_mscoco_val2014_questions.json    those of val,
    v2_mscoco_val2014_annotations.json            their answers
    val2014/                                      and pictures

The answers of test-dev are not public: a server scores them.
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
from asap.data.questions.json_files import document, entry, name_of, numbered, whole_text
from asap.data.questions.llava_questions import llava_questions
from asap.data.questions.vqa_answers import annotators
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec

_QUESTIONS = {
    "val": "v2_OpenEnded_mscoco_val2014_questions.json",
    "test-dev": "v2_OpenEnded_mscoco_test-dev2015_questions.json",
}
_ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
_ANNOTATED = (_ANNOTATIONS, f"Annotations/{_ANNOTATIONS}")  # the latter as VQA's code lays it out
_LLAVA = "llava_vqav2_mscoco_test-dev2015.jsonl"
_TEST = "llava_vqav2_mscoco_test2015.jsonl"
_PICTURES = {"val": "val2014", "test-dev": "test2015"}
_EXPECTED = "expected VQA's file, a JSON object with the list questions or annotations"
_METRIC = "VQA accuracy, in %"
VQAV2 = {
    "val": Benchmark("vqav2", "val", _METRIC, "mean", 214_354),
    "test-dev": Benchmark("vqav2", "test-dev", _METRIC, "mean", 107_394, answers_public=False),
}


@dataclass(frozen=True)
class Vqav2Options(SplitOptions):
    """VQAv2 has no options but its split and those of all benchmarks."""

    splits: ClassVar = ("test-dev", "val")
    folders: ClassVar = ("vqav2", "vqa", "vqa_v2")
    holds: ClassVar = f"{_ANNOTATIONS}, the questions and val2014, or {_LLAVA} and test2015"

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        split = self.split
        if split is None:
            split = "val" if optional_file(folder, _ANNOTATED) else "test-dev"
        names = [_QUESTIONS[split], f"Questions/{_QUESTIONS[split]}"]  # the latter as VQA's code
        names = names if split == "val" else [_LLAVA, *names]
        file = first_file(folder, names, "get VQAv2's questions from visualqa.org")
        if file.name == _LLAVA:
            asked = self._as_llava_asks(file)
        else:
            answers = _annotations(folder) if split == "val" else {}
            listed = _listed(file, "questions")
            asked = [self._asked(*one, split, answers, folder) for one in listed]
        refuse_twice(asked, file)
        of_coco = _PICTURES[split]
        places = (
            of_coco,
            f"images/{of_coco}",
            f"Images/mscoco/{of_coco}",
            f"../coco/{of_coco}",
            f"../pope/{of_coco}",
            "images",
        )
        pictures = self.picture_files(folder, file, places)
        return self.opened(asked, pictures, opening, VQAV2[split])

    def ids_of_test(self, spec: DataSpec) -> list[str]:
        """The ids of all questions of test2015, those of test-dev among them, in the order of
        LLaVA's file; empty if the folder does not have it.
        """
        file = optional_file(self.folder(spec), [_TEST])
        return [] if file is None else [one.id for one in llava_questions(file)]

    def _as_llava_asks(self, file: Path) -> list[Asked]:
        return [
            Asked(
                one.id, one.image, self.worded(one.text, SHORT, complete=True), "unscored", (),
                "vqav2", "",
            )
            for one in llava_questions(file)
        ]  # fmt: skip

    def _asked(
        self,
        where: str,
        given: dict[str, Any],
        split: str,
        answers: dict[str, tuple[str, dict[str, Any]]],
        folder: Path,
    ) -> Asked:
        id = name_of(given.get("question_id"), "question_id", where)
        image = f"COCO_{_PICTURES[split]}_{entry(given, 'image_id', where, int):012d}.jpg"
        text = self.worded(entry(given, "question", where), SHORT, complete=False)
        if split != "val":
            return Asked(id, image, text, "unscored", (), "vqav2", "")
        if id not in answers:
            raise RequestError(f"{where} has question_id={id}, which {folder / _ANNOTATIONS} lacks")
        place, right = answers[id]
        group = whole_text(right.get("answer_type", ""), "answer_type", place)
        return Asked(id, image, text, "vqav2", annotators(right, place), "vqav2", group)


def _annotations(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Question -> place in words and annotation."""
    file = first_file(folder, _ANNOTATED, "get VQAv2's annotations from visualqa.org")
    return {
        name_of(given.get("question_id"), "question_id", where): (where, given)
        for where, given in _listed(file, "annotations")
    }


def _listed(file: Path, name: str) -> list[tuple[str, dict[str, Any]]]:
    found = document(file, _EXPECTED)
    if not isinstance(found, dict) or name not in found:
        raise RequestError(f"{file} has no {name}: {_EXPECTED}")
    return numbered(found[name], file, _EXPECTED)
