"""Kill a run at random moments, restart it, and compare it with an undisturbed run.

    python scripts/stress_resume.py                       # 20 kills, a few minutes
    python scripts/stress_resume.py --kills 2 --images 60
    python scripts/stress_resume.py --launch torchrun     # two processes: one, all or torchrun die
    python scripts/stress_resume.py --launch joblib --signals INT TERM KILL --each 10
    ... also --launch basic and submitit: multiruns under hydra's launchers

Predictions and tables must be byte-identical with those of one undisturbed process. No record may
be lost, duplicated, incomplete or measured again, and no temporary file may remain. The same holds
when two processes run the same spec at once. The report is written to
results/bench/cpu/stress_<launch>.txt (stress_multirun_... under a launcher). Exit code 1 if
anything differs.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stress_run import (
    LAUNCHES,
    Failure,
    Run,
    check_kept,
    check_sound,
    compare,
    outcome,
    reported,
    wait_for_work,
    work_done,
)
from stress_signals import send

REPORTS = Path("results/bench/cpu")
NAMES = {"one": "resume", "torchrun": "torchrun"}
PART = 0.4  # moments are drawn from this part of the run time, so one run gets several signals


@dataclass
class Seen:
    """Counts of the situations in which the signals arrived."""

    rounds: int = 0
    ended_well: int = 0
    within: int = 0
    within_a_row: int = 0
    temporary: int = 0
    after_rows: Counter[int] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)


def disturb(
    run: Run, folder: Path, expected: dict[str, bytes], seconds: float, plan: list[str], seed: int
) -> Seen:
    """Send the signals of the plan, each to a new start of the command.

    A run that ends before its signal, or has all of its rows, is finished and compared with the
    expected files. The next start then begins with an empty folder.
    """
    draw, seen, results = random.Random(seed), Seen(), folder / "killed"
    left, plan, kept, rows = len(plan), draw.sample(plan, len(plan)), {}, 0
    while left or results.exists():
        started = run.start(results)
        at = wait_for_work(started, results) + draw.uniform(0, PART * seconds)
        if left and rows < run.rows and _still_runs(started.process, at):
            name, left = plan[left - 1], left - 1
            victim, well = send(name, started, run.launch, draw)
            check_kept(kept)
            rows = _note(seen, f"SIG{name} to {victim}", check_sound(results, run.images), run.rows)
            seen.ended_well += well
            kept = work_done(results)
            sys.stderr.write(f"{left} left: {name} to {victim} after {rows} rows\n")
            if not well:
                _clear_jobs(results, name, victim)
                continue
        started.finish()
        check_kept(kept)
        compare(results, expected, run.rows)
        shutil.rmtree(results)
        seen.rounds, kept, rows = seen.rounds + 1, {}, 0
    return seen


def _still_runs(process: subprocess.Popen, at: float) -> bool:
    """Wait until the time `at`; True if the process still runs then."""
    try:
        process.wait(max(0.0, at - time.time()))
    except subprocess.TimeoutExpired:
        return True
    return False


def _clear_jobs(results: Path, name: str, victim: str) -> None:
    """Remove the folder for the jobs' outcomes, which only a killed command may leave behind."""
    for path in results.glob("multirun/jobs-*"):
        if name != "KILL":
            raise Failure(f"{path.name} is left after SIG{name} to {victim}")
        shutil.rmtree(path)


def _note(seen: Seen, what: str, left: Counter[str], all_rows: int) -> int:
    """Count the files that a signal left; returns the number of finished rows."""
    rows = left["finished rows"]
    seen.victims[what] += 1
    seen.after_rows[rows] += 1
    seen.within += rows < all_rows and rows + left["rows with shards"] > 0
    seen.within_a_row += left["rows with shards"] > 0
    seen.temporary += left["temporary files"] > 0
    return rows


def race(run: Run, folder: Path, expected: dict[str, bytes], kill_after: float | None) -> None:
    """Run two processes on one spec at once; one is killed after `kill_after` seconds, if given."""
    results = folder / f"race-{kill_after is not None}"
    first, second = run.start(results), run.start(results)
    if kill_after is not None:
        wait_for_work(first, results)
        time.sleep(kill_after)
        first.process.kill()
        first.end()
    else:
        first.finish()
    second.finish()
    compare(results, expected, run.rows)


def stress(run: Run, plan: list[str], seed: int, folder: Path) -> list[str]:
    """Run the whole experiment; returns the lines of its report. Raises Failure."""
    expected, seconds = undisturbed(run, folder / "alone", alone=True)
    if run.launch not in ("one", "basic"):
        _, seconds = undisturbed(run, folder / "undisturbed", alone=False)
        compare(folder / "undisturbed", expected, run.rows)
    seen = disturb(run, folder, expected, seconds, plan, seed)
    lines = [*_about(run, seconds), *_signals(seen, plan, seed), *_verified(run)]
    if run.launch == "one":
        race(run, folder, expected, None)
        race(run, folder, expected, seconds / 2)
        lines += ["Two processes with the same command at once: the same."]
        lines += ["Two processes at once, one of them killed half-way: the same."]
    return lines


def undisturbed(run: Run, results: Path, alone: bool) -> tuple[dict[str, bytes], float]:
    """The files of an undisturbed run, and the seconds from its start-up to the last record."""
    started = run.start(results, alone)
    began = wait_for_work(started, results)
    started.finish()
    last = max(path.stat().st_mtime for path in results.glob("runs/*/accuracy.json"))
    found = outcome(results)
    compare(results, found, run.rows)
    return found, last - began


def _about(run: Run, seconds: float) -> list[str]:
    return [
        f"{run.rows} records over {run.images} digit scenes with the embedded model on the CPU, in",
        f"{run.name}, finished images saved every",
        f"{run.shard_seconds} s. Undisturbed, the work takes {seconds:.0f} s from start-up to the "
        "last record.",
        "",
    ]


def _signals(seen: Seen, plan: list[str], seed: int) -> list[str]:
    after = ", ".join(f"{n} after {rows}" for rows, n in sorted(seen.after_rows.items()))
    kinds = ", ".join(f"{n} SIG{name}" for name, n in sorted(Counter(plan).items()))
    return [
        f"{len(plan)} signals in random order (seed {seed}): {kinds}, each at a moment drawn from",
        f"the first {PART:.0%} of that time after start-up, each followed by a restart of the same "
        "command.",
        *(f"- {what}: {n}" for what, n in sorted(seen.victims.items())),
        f"Runs that came to their end this way: {seen.rounds}.",
        f"Signals by the number of rows that were finished then: {after}.",
        f"Signals between the first saved image and the last record: {seen.within}.",
        f"Signals that met a half-finished row with saved images: {seen.within_a_row}.",
        f"Signals that met a file being written: {seen.temporary}.",
        f"Signals that met a command whose work was done (exit code 0): {seen.ended_well}.",
        "",
    ]


def _verified(run: Run) -> list[str]:
    return [
        "After every signal: no process went on, no torn file under a final name, no image twice,",
        "no finished row and no saved images made again (the files' times of writing). After",
        "SIGINT and SIGTERM (but under torchrun): exit code 130 or 143, no traceback.",
        f"At every end: answers.parquet and traces.parquet of all {run.rows} rows, the records",
        "(but for date, time and environment) and the tables (Markdown, CSV) byte-identical with",
        "those of one process that nobody disturbed; no shard and no temporary file left.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--signals", nargs="+", choices=("INT", "TERM", "KILL"), default=["KILL"])
    parser.add_argument("--each", "--kills", type=int, default=20, help="of each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--launch", choices=LAUNCHES, default="one")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    name = NAMES.get(given.launch, f"multirun_{given.launch}")
    report = given.report or REPORTS / f"stress_{name}.txt"
    os.environ.setdefault("MPLBACKEND", "Agg")
    command = (
        f"scripts/stress_resume.py --launch {given.launch} --signals {' '.join(given.signals)}"
    )
    command += f" --each {given.each} --seed {given.seed} --images {given.images}"
    run, plan = Run(given.images, given.launch), given.signals * given.each
    return reported(report, command, partial(stress, run, plan, given.seed))


if __name__ == "__main__":
    sys.exit(main())
