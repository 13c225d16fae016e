"""Where the files of a benchmark are: its folder, as LLaVA's evaluation lays it out.

https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md, `playground/data/eval`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from asap.data.base import DataSet
from asap.data.options import DataOptions, Opening
from asap.data.questions.asked import Asked, question_set, refuse_cache
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.json_files import shown
from asap.data.questions.kinds import KINDS
from asap.data.questions.picture_files import PictureFiles
from asap.data.questions.question_set import Pictures
from asap.errors import RequestError
from asap.spec.check import one_of
from asap.spec.paths import PathText
from asap.spec.run_spec import DataSpec

log = logging.getLogger("asap")
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class BenchmarkOptions(DataOptions):
    """benchmarks: the folder that holds the folders of all benchmarks; images: that of the
    pictures, null: where LLaVA's layout has it; instruction: what stands behind a question, on a
    line of its own, null: what LLaVA asks.

    folders: names of the benchmark's folder, in any case; holds: what is in it, in words; pictures:
    where in it the pictures may be.
    """

    benchmarks: PathText | None = None
    images: PathText | None = None
    instruction: str | None = None
    folders: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[str] = ""
    pictures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def found_in(cls, root: Path) -> Path | None:
        """The benchmark's folder in that of all benchmarks."""
        if not root.is_dir():
            return None
        there = {one.name.lower(): one for one in sorted(root.iterdir()) if one.is_dir()}
        return next((there[name] for name in cls.folders if name in there), None)

    def folder(self, spec: DataSpec) -> Path:
        """The benchmark's folder. RequestError if there is none."""
        refuse_cache(spec)
        expected = f"with {self.holds}, as LLaVA's docs/Evaluation.md lays it out"
        if spec.path is not None:
            given = Path(spec.path)
            if not given.is_dir():
                raise RequestError(f"data.path={spec.path} is not a folder: give one {expected}")
            if (inside := self.found_in(given)) is not None:
                raise RequestError(
                    f"data.path={spec.path} holds {inside.name}: give benchmarks={spec.path}, or "
                    f"data.path={inside}"
                )
            return given
        if self.benchmarks is None:
            raise RequestError(
                f"data.path is missing: give the folder of {spec.name}, or benchmarks=<folder>, "
                f"which holds it under the name {self.folders[0]}; it is one {expected}"
            )
        root = Path(self.benchmarks)
        if not root.is_dir():
            raise RequestError(
                f"benchmarks={self.benchmarks} is not a folder: give the one that holds the "
                f"folder {self.folders[0]}"
            )
        found = self.found_in(root)
        if found is None:
            names = " or ".join(self.folders)
            raise RequestError(
                f"benchmarks={self.benchmarks} has no folder {names}: give one {expected}, there "
                "or with data.path=<folder>"
            )
        return found

    def worded(self, text: str, usual: str, complete: bool) -> str:
        """What is asked: the text with an instruction. complete: it ends with LLaVA's `usual` one,
        as the texts of LLaVA's question files do.
        """
        if complete and self.instruction is None:
            return text
        bare = text.removesuffix(f"\n{usual}")
        return f"{bare}\n{usual if self.instruction is None else self.instruction}"

    def picture_files(
        self, folder: Path, listed: Path, places: Sequence[str] = ()
    ) -> Callable[[Sequence[str]], Pictures]:
        """The pictures of paths that a file of the benchmark's folder has listed.

        places: where in the folder they may be, else `pictures`.
        """
        places = places or self.pictures
        if self.images is not None:
            found = Path(self.images)
            if not found.is_dir():
                raise RequestError(
                    f"data.images={found} is not a folder: give that of the pictures"
                )
            return lambda paths: PictureFiles(found, paths, listed)
        there = [folder / name for name in places if (folder / name).is_dir()]
        if not there:
            raise RequestError(
                f"{folder} has no folder of pictures ({' or '.join(places)}): put it there, "
                "or give it with data.images=<folder>"
            )
        return lambda paths: PictureFiles(there[0], paths, listed)

    def opened(
        self,
        asked: Sequence[Asked],
        pictures_at: Callable[[Sequence[str]], Pictures],
        opening: Opening,
        benchmark: Benchmark,
        counted: int | None = None,
    ) -> DataSet:
        """The benchmark's data set; counted: its questions, if several of `asked` are one."""
        called = f"{benchmark.name} {benchmark.split}"
        n = len(asked) if counted is None else counted
        if benchmark.n_expected not in (None, n):
            log.warning(
                "%s: the files have %s questions, the published set has %s",
                called, f"{n:,}", f"{benchmark.n_expected:,}",
            )  # fmt: skip
        return question_set(asked, pictures_at, opening, called, benchmark)


@dataclass(frozen=True)
class SplitOptions(BenchmarkOptions):
    """split: whose questions are asked, one of `splits`; null: val where the folder has its
    answers; the rest as of all benchmarks. RequestError on an unknown split.
    """

    split: str | None = None
    shown: ClassVar[tuple[str, ...]] = ("split",)
    splits: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.split is not None:
            one_of("data.split", self.split, self.splits)


def first_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of these files that the folder has; RequestError about `what` if it has none."""
    if (found := optional_file(folder, names)) is None:
        raise RequestError(f"{folder} has no {' or '.join(names)}: {what}")
    return found


def optional_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that the folder has, if any."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def lettered(options: Sequence[str]) -> list[str]:
    """A line for each option, with its letter."""
    return [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]


def right_answers(kind: str, answers: Sequence[str], where: str) -> tuple[str, ...]:
    """The right answers as a kind of question has them; RequestError if it cannot have them."""
    try:
        return KINDS[kind].read(answers)
    except ValueError as reason:
        raise RequestError(f"{where} has the answer {shown(list(answers))}: {reason}") from None


def refuse_twice(asked: Sequence[Asked], file: Path) -> None:
    """RequestError if two questions about a picture have one id."""
    seen: set[tuple[str, str]] = set()
    for one in asked:
        if (one.image, one.id) in seen:
            raise RequestError(
                f"{file} has the question {one.id!r} about {one.image} twice: download it again"
            )
        seen.add((one.image, one.id))
