"""MMBench (Liu et al. 2023), English, dev: one choice among two to four options.

    mmbench_dev_20230712.tsv    questions, options, answers and pictures

The file asks a question once for each turn of its options (CircularEval).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.asked import Asked
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.benchmark_files import (
    LETTER,
    BenchmarkOptions,
    first_file,
    lettered,
    refuse_twice,
)
from asap.data.questions.encoded_pictures import EncodedPictures
from asap.data.questions.json_files import text_of
from asap.errors import RequestError, one_line

log = logging.getLogger("asap")
OPTIONS = "ABCD"
TURN = 1_000_000  # a turn of the options adds this to the number of the question
_FILES = ("mmbench_dev_20230712.tsv", "mmbench_dev_en_20231003.tsv", "MMBench_DEV_EN.tsv")
_NEEDED = ("index", "question", "A", "B", "answer", "image")
_EXPECTED = f"expected MMBench's file, a table with tabs and the columns {', '.join(_NEEDED)}"
_QUESTIONS = {_FILES[0]: 1_164}
_METRIC = "right in every turn of the options, in %; letters and texts, without a judge (static)"


@dataclass(frozen=True)
class MmbenchOptions(BenchmarkOptions):
    """MMBench has no options but those of all benchmarks; its pictures are in its file."""

    folders: ClassVar = ("mmbench", "mmb")
    holds: ClassVar = _FILES[0]

    def open(self, opening: Opening) -> DataSet:
        folder = self.folder(opening.spec)
        if self.images is not None:
            raise RequestError(
                f"data.images={self.images!r} is not for data=mmbench: leave it null, the pictures "
                "are in its file"
            )
        file = first_file(folder, _FILES, "get it from MMBench's page")
        rows = _rows(file)
        pictures = EncodedPictures.of(rows, file)
        asked = [self._asked(one, pictures, file) for one in rows]
        refuse_twice(asked, file)
        numbers = {int(one.id) % TURN for one in asked}
        if len(numbers) == len(asked):
            raise RequestError(
                f"{file} asks every question with one order of its options: get {_FILES[0]}, which "
                "has all of them"
            )
        if lacking := _without_all_turns(asked):
            log.warning(
                "%s: %s of %s questions are not asked in as many orders as they have options, such "
                "as %s, and so are easier to get right",
                file.name, f"{len(lacking):,}", f"{len(numbers):,}", lacking[0],
            )  # fmt: skip
        if lost := sum(ord(one.answers[0]) - ord("A") >= len(one.answers) - 1 for one in asked):
            log.warning(
                "%s: %s rows lack the option that is right: as LLaVA's code, this one leaves out "
                "options named None or nan, and those behind them",
                file.name, f"{lost:,}",
            )  # fmt: skip
        n_expected = _QUESTIONS.get(file.name)
        about = Benchmark("mmbench", "dev", _METRIC, "circular", n_expected, max_new_tokens=1_024)
        return self.opened(asked, lambda paths: pictures.at(paths), opening, about, len(numbers))

    def _asked(self, row: dict[str, str | None], pictures: EncodedPictures, file: Path) -> Asked:
        index = row["index"] or ""
        where = f"question {index} of {file}"
        if not index.isdecimal():
            raise RequestError(f"{file} has index={index!r}: {_EXPECTED}")
        options = []
        for letter in OPTIONS:
            if (option := row.get(letter)) is None:
                break
            options.append(option)
        right = row["answer"] or ""
        if len(right) != 1 or right not in OPTIONS or not options:
            raise RequestError(f"{where} has answer={right!r} of {len(options)} options")
        hint = [one for one in [row.get("hint")] if one is not None]
        question = text_of(row["question"], "question", where)
        text = "\n".join((*hint, question, *lettered(options)))
        return Asked(
            index, pictures.path_of(index), self.worded(text, LETTER, complete=False), "option",
            (right, *options), "mmbench", "",
        )  # fmt: skip


def _without_all_turns(asked: Sequence[Asked]) -> list[int]:
    """The numbers of the questions that have fewer turns than options."""
    turns = Counter(int(one.id) % TURN for one in asked)
    options: dict[int, int] = {}  # the fewest, as turns may lack some
    for one in asked:
        number, n = int(one.id) % TURN, len(one.answers) - 1
        options[number] = min(n, options.get(number, n))
    return [number for number, n in turns.items() if n < options[number]]


def _rows(file: Path) -> list[dict[str, str | None]]:
    """The rows of the file by column, None where nothing is given; read as LLaVA reads them."""
    try:
        table = pd.read_table(file, dtype=str)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise RequestError(f"{file} cannot be read ({one_line(error)}): {_EXPECTED}") from None
    if missing := [name for name in _NEEDED if name not in table]:
        raise RequestError(f"{file} has no column {' and '.join(missing)}: {_EXPECTED}")
    if table.empty:
        raise RequestError(f"{file} has no question: {_EXPECTED}")
    kept = table.astype(object).where(table.notna(), None)
    return [
        {str(k): None if _says_none(v) else v for k, v in row.items()}
        for row in kept.to_dict("records")
    ]


def _says_none(value: str | None) -> bool:
    return value is None or value.lower() in ("nan", "none")
