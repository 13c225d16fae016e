"""Kill a run at random moments, restart it, and compare it with one that nobody disturbed.

    python scripts/stress_resume.py                       # 20 kills, a few minutes
    python scripts/stress_resume.py --kills 2 --images 60

Predictions and tables must be byte-identical, with no record lost, doubled or torn and nothing left
over; also when two processes run the same spec at once. What was seen goes to
results/bench/cpu/stress_resume.txt. Exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from asap.runs.record import decode_predictions
from asap.runs.store import Store

ROWS = "rows=[{method: dense}, {method: random_drop}, {method: tome, with: {r: 3}}, "
ROWS += "{method: asap, with: {tau: 2.0}}]"
N_ROWS = 4
VOLATILE = ("created", "seconds", "environment")  # of a record: when and where, not what
REPORT = Path("results/bench/cpu/stress_resume.txt")
PATIENCE = 300  # seconds until a process counts as hanging


class Failure(Exception):
    """What must not happen did."""


@dataclass
class Run:
    """The same command again and again, on different results folders."""

    images: int
    shard_seconds: float = 0.2

    def start(self, results: Path) -> subprocess.Popen:
        command = [
            sys.executable, "-m", "asap.run", "title=Stress", ROWS, "device=cpu", "batch_size=8",
            f"data.images={self.images}", f"shard_seconds={self.shard_seconds}",
            f"results={results}",
        ]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, **quiet)

    def finish(self, process: subprocess.Popen) -> None:
        _, errors = process.communicate(timeout=PATIENCE)
        if process.returncode != 0:
            raise Failure(f"exit code {process.returncode}: {errors.strip()[-400:]}")


def wait_for_work(process: subprocess.Popen, results: Path) -> float:
    """Wait until imports are done and the store is opened; the moment."""
    runs = results / "runs"
    before = _changed(runs)
    while _changed(runs) == before and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


# ---- what a folder holds


def outcome(results: Path) -> dict[str, bytes]:
    """Every file that must be the same whatever happened on the way, by its path."""
    files = [*results.glob("runs/*/predictions.parquet"), *results.glob("tables/*")]
    found = {str(path.relative_to(results)): path.read_bytes() for path in files}
    for path in results.glob("runs/*/accuracy.json"):
        record = json.loads(path.read_bytes())
        lasting = {k: v for k, v in record.items() if k not in VOLATILE}
        found[str(path.relative_to(results))] = json.dumps(lasting, sort_keys=True).encode()
    return found


def compare(results: Path, expected: dict[str, bytes]) -> None:
    """Raise Failure unless a finished run's files are those of the undisturbed one, and no more."""
    found = outcome(results)
    if found.keys() != expected.keys():
        raise Failure(f"other files: {sorted(found.keys() ^ expected.keys())}")
    if differing := [name for name in expected if found[name] != expected[name]]:
        raise Failure(f"other bytes: {differing}")
    patterns = ("*.tmp", "shard-*", "error.json", "*.corrupt", ".probe")
    if left := [path.name for pattern in patterns for path in results.rglob(pattern)]:
        raise Failure(f"left over: {left}")
    if (count := len(Store(results / "runs").cells())) != N_ROWS:
        raise Failure(f"{count} records instead of {N_ROWS}")


def check_sound(results: Path, images: int) -> Counter[str]:
    """What a kill left. Raises Failure if anything under a final name is torn or doubled."""
    seen = Counter[str]()
    for cell in (path for path in results.glob("runs/*") if path.is_dir()):
        bounds = []
        for path in cell.glob("*.parquet"):
            rows = sorted(decode_predictions(path.read_bytes())["index"])
            if path.name == "predictions.parquet":
                start, stop = 0, images
            else:
                start, stop = map(int, path.stem.split("-")[1:])
                bounds.append((start, stop))
            if rows != list(range(start, stop)):
                raise Failure(f"{path.name} does not hold each of its images once")
        if any(second < stop for (_, stop), (second, _) in pairwise(sorted(bounds))):
            raise Failure("shards overlap")
        for path in cell.glob("*.json"):
            json.loads(path.read_bytes())
        done = (cell / "accuracy.json").exists()
        seen["finished rows"] += done
        seen["rows with shards"] += bool(bounds) and not done
        seen["temporary files"] += len(list(cell.glob(".*.tmp")))
    return seen


# ---- the experiment


@dataclass
class Seen:
    """What the kills met."""

    kills: int = 0
    rounds: int = 0
    within_a_row: int = 0
    rows_resumed: int = 0
    temporary: int = 0
    after_rows: Counter[int] = field(default_factory=Counter)


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
            process.kill()
            process.communicate()
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
        first.send_signal(signal.SIGKILL)
        first.communicate()
    else:
        run.finish(first)
    run.finish(second)
    compare(results, expected)


def stress(images: int, kills: int, seed: int, folder: Path) -> list[str]:
    """The whole experiment; the lines of its report. Raises Failure."""
    run = Run(images)
    process = run.start(folder / "undisturbed")
    began = wait_for_work(process, folder / "undisturbed")
    run.finish(process)
    seconds = time.monotonic() - began
    expected = outcome(folder / "undisturbed")
    compare(folder / "undisturbed", expected)

    seen = kill_and_restart(run, folder, expected, seconds, kills, seed)
    race(run, folder, expected, None)
    race(run, folder, expected, seconds / 2)
    after = ", ".join(f"{n} after {rows}" for rows, n in sorted(seen.after_rows.items()))
    return [
        f"{N_ROWS} methods over {images} digit scenes with the embedded model on the CPU, finished",
        f"images saved every {run.shard_seconds} s. Undisturbed, the work takes {seconds:.0f} s.",
        "",
        f"{seen.kills} kills with SIGKILL (seed {seed}), each at a moment drawn from the first",
        "third of that time after start-up, each followed by a restart of the same command.",
        f"Runs that came to their end this way: {seen.rounds}.",
        f"Kills by the number of rows that were finished then: {after}.",
        f"Kills that met a half-finished row with saved images: {seen.within_a_row}.",
        f"Kills that met a file being written: {seen.temporary}.",
        "",
        "After every kill: no torn file under a final name, no image twice.",
        f"At every end: predictions.parquet of all {N_ROWS} rows, the records (but for date, time",
        "and environment) and the tables (Markdown, CSV) byte-identical with the undisturbed",
        "run's; no shard and no temporary file left.",
        "Two processes with the same command at once: the same.",
        "Two processes at once, one of them killed half-way: the same.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "Agg")
    command = f"scripts/stress_resume.py --kills {given.kills} --seed {given.seed}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = stress(given.images, given.kills, given.seed, Path(folder))
            verdict = "passed"
        except Failure as failure:
            lines, verdict = [str(failure).replace(folder, "<folder>")], "FAILED"
    text = "\n".join([f"{command} --images {given.images}", "", *lines, "", verdict]) + "\n"
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(text, "utf-8")
    sys.stdout.write(text)
    return 0 if verdict == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
