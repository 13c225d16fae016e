"""Compare our scores of made answers with lmms-eval's, question by question and in total.

    python scripts/check_scores.py --python lmms/bin/python    # a minute on a CPU

lmms-eval lives in an environment of its own, anywhere:

    python -m venv lmms
    lmms/bin/pip install loguru numpy pandas pyyaml requests sacrebleu
    lmms/bin/pip install --no-deps lmms-eval==0.7.3

The answers are made here (made_answers.py), lmms-eval's own functions score them there
(lmms_scores.py). Differences that are known are listed below, by name, with how many answers each
explains. The exit code is 1 if any other answer has another score, or if the totals over all
questions without a known difference are not the same.
"""

import argparse
import json
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from made_answers import Question, made
from rich.console import Console
from rich.table import Table

from asap.data.questions.benchmark import Benchmark
from asap.data.questions.mmbench import TURN
from asap.tasks.benchmark_score import benchmark_score
from asap.tasks.scoring import option, scienceqa, yes_no
from asap.tasks.scoring.rules import RULES, SAID

THEIRS = Path(__file__).with_name("lmms_scores.py")
CLOSE = 1e-9
# Task -> kind of its questions, rule of its number.
TASKS = {
    "pope": ("yes_no", "mean_f1"), "gqa": ("exact", "mean"), "mme": ("mme", "mme"),
    "scienceqa": ("scienceqa", "mean"), "vizwiz": ("vqa", "answerable"), "vqav2": ("vqav2", "mean"),
    "mmbench": ("option", "circular"),
}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A known difference. applies: whether it may change the score of an answer; found: the pairs
    of scores that it explains, ours first.
    """

    task: str
    name: str
    applies: Callable[[Question], bool]
    found: frozenset[tuple[float, float]]


RIGHT_HERE, RIGHT_THERE = (1.0, 0.0), (0.0, 1.0)
DIFFERENCES = (
    Difference(
        "pope", "more than yes or no: POPE reads the first sentence, lmms-eval the whole answer",
        lambda one: one["text"].lower() not in (yes_no.YES, yes_no.NO),
        frozenset({RIGHT_HERE}),
    ),
    Difference(
        "pope", "NO in capitals: POPE knows No and no, and counts anything else as yes",
        lambda one: one["text"].lower() == yes_no.NO and yes_no.said(one["text"]) != yes_no.NO,
        frozenset({RIGHT_HERE, RIGHT_THERE}),
    ),
    Difference(
        "gqa", "punctuation: lmms-eval removes all, LLaVA's script only periods at the end",
        lambda one: any(_marks(text) for text in (one["text"], *one["right"])),
        frozenset({RIGHT_THERE}),
    ),
    Difference(
        "mme", "periods and a bare y or n: lmms-eval removes and reads them, MME's tool does not",
        lambda one: "." in one["text"] or one["text"].lower() in ("y", "n"),
        frozenset({RIGHT_THERE}),
    ),
    Difference(
        "scienceqa", "a lower-case letter: lmms-eval reads it, LLaVA's script does not",
        lambda one: len(one["text"]) == 1 and one["text"] != one["text"].upper(),
        frozenset({RIGHT_THERE}),
    ),
    Difference(
        "scienceqa", '"B.": lmms-eval reads it, LLaVA\'s script wants a blank behind the period',
        lambda one: one["text"][1:2] == "." and one["text"][1:3] != ". ",
        frozenset({RIGHT_THERE}),
    ),
    Difference(
        "scienceqa", '"The answer is B.": LLaVA\'s script reads it, lmms-eval does not',
        lambda one: "The answer is" in one["text"] and scienceqa.named(one["text"]) != "",
        frozenset({RIGHT_HERE}),
    ),
    Difference(
        "mmbench", "no rule names an option: lmms-eval then takes any letter, MMBench asks a judge",
        lambda one: option.named(one["text"], one["right"][1:]) == "",
        frozenset({RIGHT_THERE}),
    ),
)  # fmt: skip


def _marks(text: str) -> bool:
    return any(sign in string.punctuation for sign in text.rstrip("."))


def known(task: str, one: Question) -> Difference | None:
    """The first known difference that may change an answer's score."""
    return next((d for d in DIFFERENCES if d.task == task and d.applies(one)), None)


def our_scores(task: str, asked: Sequence[Question]) -> list[float]:
    """The score of each answer by our rule."""
    return [RULES[TASKS[task][0]](one["text"], one["right"]) for one in asked]


def our_total(task: str, asked: Sequence[Question]) -> float:
    """The benchmark's number, as a run finds it from its table of answers."""
    kind, rule = TASKS[task]
    said = SAID.get(kind, lambda text: "")
    frame = pd.DataFrame(asked).rename(columns={"right": "answers"})
    frame = frame.assign(
        path=[f"{one['picture']}#{one['id']}" for one in asked], index=range(len(asked)),
        cluster=pd.factorize(frame["picture"])[0], kind=kind, finite=1, error=None,
        said=[said(one["text"]) for one in asked], score=our_scores(task, asked),
    )  # fmt: skip
    score = benchmark_score(frame, Benchmark(task, "made", "made", rule))["score"]
    return float("nan") if score is None else score


def mark_plain(task: str, asked: Sequence[Question]) -> None:
    """Mark what has no known difference, in MMBench in any turn of a question."""
    lost = {one["id"] for one in asked if known(task, one) is not None}
    if task == "mmbench":
        numbers = {id % TURN for id in lost}
        lost = {one["id"] for one in asked if one["id"] % TURN in numbers}
    for one in asked:
        one["plain"] = one["id"] not in lost


def unexplained(
    task: str, asked: Sequence[Question], theirs: Sequence[float]
) -> tuple[list[str], Counter[str]]:
    """A line for each answer whose score differs for no known reason; answers by known reason."""
    wrong, reasons = [], Counter[str]()
    for one, ours, other in zip(asked, our_scores(task, asked), theirs, strict=True):
        if abs(ours - other) < CLOSE:
            continue
        reason = known(task, one)
        if reason is not None and (ours, other) in reason.found:
            reasons[reason.name] += 1
        else:
            said = f"{task}: {one['text'][:60]!r}, right {one['right'][:4]}"
            wrong.append(f"{said}: ours {ours:.4g}, lmms-eval's {other:.4g}")
    return wrong, reasons


def compare(
    asked: Mapping[str, Sequence[Question]], theirs: Mapping[str, Any]
) -> tuple[Table, list[str], list[str]]:
    """The table over tasks, a line for each known difference, one for each that is not known."""
    table = Table(title="Scores of made answers, ours beside lmms-eval's")
    for head in ("task", "answers", "other score", "known", "not known"):
        table.add_column(head, justify="left" if head == "task" else "right")
    for head in ("total\nours", "total\nlmms-eval", "without known\nours", "lmms-eval"):
        table.add_column(head, justify="right")
    listed, wrong = [], []
    for task, questions in asked.items():
        found = theirs[task]
        lines, reasons = unexplained(task, questions, found["scores"])
        plain = [one for one in questions if one["plain"]]
        totals = our_total(task, questions), found["total"]
        agreed = our_total(task, plain), found["total_plain"]
        if not abs(agreed[0] - agreed[1]) < 1e-6:
            lines.append(f"{task}: total of {len(plain)} questions {agreed[0]}, {agreed[1]}")
        known_ones = sum(reasons.values())
        table.add_row(
            task, f"{len(questions):,}", str(known_ones + len(lines)), str(known_ones),
            str(len(lines)), *(f"{value:.4f}" for value in (*totals, *agreed)),
        )  # fmt: skip
        listed += [f"{n} of {task}: {name}" for name, n in reasons.items()]
        wrong += lines
    return table, listed, wrong


def ask(python: str, wanted: str, given: Any = None) -> dict[str, Any]:
    """What lmms_scores.py says. SystemExit, with a reason, if it fails."""
    command = [python, str(THEIRS), wanted]
    try:
        done = subprocess.run(
            command, input=json.dumps(given), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise SystemExit(f"--python {python} cannot be started ({error}): see --help") from None
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise SystemExit(f"--python {python} cannot score ({said}): see --help")
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, help="that of the environment with lmms-eval")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    given = parser.parse_args(arguments)
    words = ask(given.python, "words")
    asked = made(given.seed, words["found"])
    for task, questions in asked.items():
        mark_plain(task, questions)
    table, listed, wrong = compare(asked, ask(given.python, "scores", asked)["found"])
    console = Console(width=None if sys.stdout.isatty() else 160)
    print_ = console.print
    print_(table)
    print_(f"lmms-eval {words['version']}, seed {given.seed}. Known differences:", highlight=False)
    for line in listed:
        print_(f"- {line}", markup=False, highlight=False)
    for line in wrong:
        print_(f"DIFFERS  {line}", markup=False, highlight=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
