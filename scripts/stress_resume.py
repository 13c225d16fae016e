"""Kill a run at random moments, restart it, and compare it with one that nobody disturbed.

    python scripts/stress_resume.py                       # 20 kills, a few minutes
    python scripts/stress_resume.py --kills 2 --images 60
    python scripts/stress_resume.py --launch torchrun     # two processes: one, all or torchrun die
    python scripts/stress_resume.py --launch multirun     # joblib's workers: one or all die

Predictions and tables must be byte-identical with those of one undisturbed process, with no record
lost, doubled or torn and nothing left over; also when two processes run the same spec at once. What
was seen goes to results/bench/cpu/stress_<launch>.txt. Exit code 1 if anything differs.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from stress_run import (
    LAUNCHES,
    N_ROWS,
    Failure,
    Run,
    check_sound,
    compare,
    kill,
    outcome,
    wait_for_work,
)

REPORTS = Path("results/bench/cpu")


@dataclass
class Seen:
    """What the kills met."""

    kills: int = 0
    rounds: int = 0
    within_a_row: int = 0
    temporary: int = 0
    after_rows: Counter[int] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)


def kill_and_restart(
    run: Run, folder: Path, expected: dict[str, bytes], seconds: float, kills: int, seed: int
) -> Seen:
    """Kill until it was done `kills` times. A run that ends before its kill is compared; the next
    one starts from nothing."""
    draw, seen, results = random.Random(seed), Seen(), folder / "killed"
    while True:
        process = run.start(results)
        if seen.kills == kills:
            run.finish(process)
            compare(results, expected)
            seen.rounds += 1
            return seen
        began = wait_for_work(process, results)
        moment = draw.uniform(0, seconds / 3)
        try:
            process.wait(max(0.0, began + moment - time.monotonic()))
        except subprocess.TimeoutExpired:
            seen.victims[kill(process, run.launch, draw)] += 1
            _note_kill(seen, check_sound(results, run.images))
            continue
        run.finish(process)
        compare(results, expected)
        seen.rounds += 1
        shutil.rmtree(results)


def _note_kill(seen: Seen, left: Counter[str]) -> None:
    seen.kills += 1
    seen.after_rows[left["finished rows"]] += 1
    seen.within_a_row += left["rows with shards"] > 0
    seen.temporary += left["temporary files"] > 0


def race(run: Run, folder: Path, expected: dict[str, bytes], kill_after: float | None) -> None:
    """Two processes on one spec at once; with `kill_after`, seconds after which one is killed."""
    results = folder / f"race-{kill_after is not None}"
    first, second = run.start(results), run.start(results)
    if kill_after is not None:
        wait_for_work(first, results)
        time.sleep(kill_after)
        first.kill()
        first.communicate()
    else:
        run.finish(first)
    run.finish(second)
    compare(results, expected)


def stress(run: Run, kills: int, seed: int, folder: Path) -> list[str]:
    """The whole experiment; the lines of its report. Raises Failure."""
    if run.launch == "one":
        expected, seconds = undisturbed(run, folder / "undisturbed", alone=True)
    else:
        expected, _ = undisturbed(run, folder / "alone", alone=True)
        _, seconds = undisturbed(run, folder / "undisturbed", alone=False)
        compare(folder / "undisturbed", expected)
    seen = kill_and_restart(run, folder, expected, seconds, kills, seed)
    lines = [*_about(run, seconds), *_kills(seen, seed), *_verified()]
    if run.launch == "one":
        race(run, folder, expected, None)
        race(run, folder, expected, seconds / 2)
        lines += ["Two processes with the same command at once: the same."]
        lines += ["Two processes at once, one of them killed half-way: the same."]
    return lines


def undisturbed(run: Run, results: Path, alone: bool) -> tuple[dict[str, bytes], float]:
    """What the run leaves when nobody disturbs it, and the seconds it takes after start-up."""
    process = run.start(results, alone)
    began = wait_for_work(process, results)
    run.finish(process)
    seconds = time.monotonic() - began
    found = outcome(results)
    compare(results, found)
    return found, seconds


def _about(run: Run, seconds: float) -> list[str]:
    return [
        f"{N_ROWS} records over {run.images} digit scenes with the embedded model on the CPU, in",
        f"{run.name}, finished images saved every",
        f"{run.shard_seconds} s. Undisturbed, the work takes {seconds:.0f} s.",
        "",
    ]


def _kills(seen: Seen, seed: int) -> list[str]:
    after = ", ".join(f"{n} after {rows}" for rows, n in sorted(seen.after_rows.items()))
    victims = ", ".join(f"{what} {n} times" for what, n in sorted(seen.victims.items()))
    return [
        f"{seen.kills} kills with SIGKILL (seed {seed}), each at a moment drawn from the first",
        "third of that time after start-up, each followed by a restart of the same command.",
        f"Killed: {victims}.",
        f"Runs that came to their end this way: {seen.rounds}.",
        f"Kills by the number of rows that were finished then: {after}.",
        f"Kills that met a half-finished row with saved images: {seen.within_a_row}.",
        f"Kills that met a file being written: {seen.temporary}.",
        "",
    ]


def _verified() -> list[str]:
    return [
        "After every kill: no process went on, no torn file under a final name, no image twice.",
        f"At every end: predictions.parquet of all {N_ROWS} rows, the records (but for date, time",
        "and environment) and the tables (Markdown, CSV) byte-identical with those of one process",
        "that nobody disturbed; no shard and no temporary file left.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--launch", choices=LAUNCHES, default="one")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    name = "resume" if given.launch == "one" else given.launch
    report = given.report or REPORTS / f"stress_{name}.txt"
    os.environ.setdefault("MPLBACKEND", "Agg")
    command = f"scripts/stress_resume.py --launch {given.launch} --kills {given.kills}"
    command += f" --seed {given.seed} --images {given.images}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = stress(Run(given.images, given.launch), given.kills, given.seed, Path(folder))
            verdict = "passed"
        except Failure as failure:
            lines, verdict = [str(failure).replace(folder, "<folder>")], "FAILED"
    text = "\n".join([command, "", *lines, "", verdict]) + "\n"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(text, "utf-8")
    sys.stdout.write(text)
    return 0 if verdict == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
