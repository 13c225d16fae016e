"""MME (Fu et al. 2023): two questions about each picture, one to be answered yes, the other no.

    llava_mme.jsonl                    LLaVA's questions; may be missing
    MME_Benchmark_release_version/     a folder for each of 14 categories, of one of two forms:
        artwork/images/10002.jpg  artwork/questions_answers_YN/10002.txt
        code_reasoning/0020.png   code_reasoning/0020.txt

A text file has a line for each question, with its answer behind a tab.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.asked import Asked
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.benchmark_files import (
    SHORT,
    BenchmarkOptions,
    optional_file,
    right_answers,
)
from asap.data.questions.json_files import content_of
from asap.data.questions.llava_questions import LlavaTexts
from asap.data.questions.picture_files import PictureFiles
from asap.errors import RequestError, counted

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
_RELEASE = "MME_Benchmark_release_version"
_BELOW = (f"{_RELEASE}/MME_Benchmark", _RELEASE, "MME_Benchmark", ".")
_OFFICIAL = "Please answer yes or no."  # LLaVA puts its own instruction in this place
_EXPECTED = "expected a question a line, with Yes or No behind a tab"
MME = Benchmark("mme", "test", "perception + cognition, of at most 2,800 points", "mme", 2_374)


@dataclass(frozen=True)
class MmeOptions(BenchmarkOptions):
    """images: the folder of the categories; the rest as of all benchmarks."""

    folders: ClassVar = ("mme",)
    holds: ClassVar = f"{_RELEASE} and its folders of categories"

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        root = self._root(folder)
        texts = LlavaTexts(
            optional_file(folder, ["llava_mme.jsonl"]),
            lambda one: (one.category, Path(one.image).stem, _bare(one.text)),
        )
        asked = [
            one
            for category in (*PERCEPTION, *COGNITION)
            for file in _files(root / category)
            for one in self._asked(root, category, file, texts)
        ]
        texts.check(root)
        return self.opened(asked, lambda paths: PictureFiles(root, paths, root), opening, MME)

    def _root(self, folder: Path) -> Path:
        """The folder of the categories; RequestError if one of these is missing."""
        places = (
            [folder / below for below in _BELOW] if self.images is None else [Path(self.images)]
        )
        known = (*PERCEPTION, *COGNITION)
        root = next((p for p in places if any((p / name).is_dir() for name in known)), None)
        if root is None:
            where = folder if self.images is None else f"data.images={self.images}"
            raise RequestError(
                f"{where} has no folder of a category of MME, such as {_RELEASE}/existence: get "
                "MME's release version"
            )
        if missing := [name for name in known if not (root / name).is_dir()]:
            raise RequestError(
                f"{root} has no folder {' or '.join(missing)}: MME's number needs all "
                f"{len(known)} categories"
            )
        return root

    def _asked(self, root: Path, category: str, file: Path, texts: LlavaTexts) -> Iterator[Asked]:
        """The questions of a text file."""
        image = _picture(root, category, file.stem)
        lines = [line for line in content_of(file, _EXPECTED).split("\n") if line.strip()]
        if len(lines) != 2:
            there = counted(len(lines), "question")
            raise RequestError(f"{file} has {there}: MME has two about a picture")
        for number, line in enumerate(lines, 1):
            where = f"line {number} of {file}"
            question, tab, answer = line.strip().rpartition("\t")
            if not tab:
                raise RequestError(f"{where} is {line.strip()[:60]!r}: {_EXPECTED}")
            text, complete = texts.of(
                (category, file.stem, _bare(question)), _bare(question), where
            )
            yield Asked(
                str(number),
                image,
                self.worded(text, SHORT, complete),
                "mme",
                right_answers("mme", [answer], where),
                category,
                "",
            )


def _files(category: Path) -> list[Path]:
    """The text files of a category, by name; RequestError if there is none."""
    below = category / "questions_answers_YN"
    there = sorted((below if below.is_dir() else category).glob("*.txt"))
    found = [file for file in there if not file.name.startswith(".")]  # macOS's of archives
    if not found:
        raise RequestError(f"{category} has no questions: get MME's release version")
    return found


def _picture(root: Path, category: str, stem: str) -> str:
    """The path of the picture that a text file is about, as LLaVA's question file has it."""
    below = f"{category}/images" if (root / category / "images").is_dir() else category
    names = [f"{below}/{stem}{ending}" for ending in (".jpg", ".png", ".jpeg")]
    return next((name for name in names if (root / name).is_file()), names[0])


def _bare(text: str) -> str:
    """A question without an instruction, to compare LLaVA's with the official one."""
    return " ".join(text.replace(SHORT, " ").replace(_OFFICIAL, " ").split())
