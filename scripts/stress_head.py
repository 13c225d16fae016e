"""Kill the training of a head at random moments, restart it, compare it with an undisturbed one.

    python scripts/stress_head.py                 # 20 kills, several minutes
    python scripts/stress_head.py --kills 2

The clips are the embedded ones. Half of the kills are meant for the time in which features are
computed, half for the training. At the end the head, its curve and the features must have the same
bytes as those of a process that nobody disturbed, and nothing unfinished may be left. The report is
written to results/bench/cpu/stress_head.txt. Exit code 1 if anything differs.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from stress_run import Failure, reported

REPORT = Path("results/bench/cpu/stress_head.txt")
VIDEOS, EPOCHS = 96, 60
BEGUN = {"features": "features/*/journal-*.jsonl", "training": "runs/*/training/head-*.safetensors"}
SAME = ("runs/*/head.safetensors", "runs/*/training.csv", "features/*/features.bin")
PATIENCE = 300  # seconds until a process counts as hanging


def start(results: Path) -> subprocess.Popen:
    """The command that trains the head and nothing else."""
    words = [
        "data=digits_clips", f"data.videos={VIDEOS}", f"data.cache={results.parent / 'clips'}",
        "head=attention", "head.reads=tokens", "head.heads=8", "head.batch_size=16",
        f"head.epochs={EPOCHS}", "method=dense", "measure.accuracy=false", "batch_size=32",
        "shard_seconds=0.1", "device=cpu", f"results={results}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "asap.run", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = (results.parent / "log.txt").open("w")
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def finish(process: subprocess.Popen, results: Path) -> None:
    if process.wait(PATIENCE) != 0:
        said = (results.parent / "log.txt").read_text("utf-8").strip()
        raise Failure(f"exit code {process.returncode}: {said[-600:]}")


def stage(results: Path) -> str:
    """How far the work in a folder is."""
    if list(results.glob("runs/*/head.json")):
        return "head finished"
    if list(results.glob(BEGUN["training"])):
        return "within the training"
    if list(results.glob("features/*/index.json")):
        return "features finished"
    return "within the features" if list(results.glob(BEGUN["features"])) else "nothing done"


def disturb(results: Path, kills: int, seed: int) -> Counter[str]:
    """Kill the command so many times, then let it end; returns the stages that the kills met.

    A kill waits until the work of its stage has begun or gone on. If the head is finished before,
    the folder is emptied, so that the next kill finds work.
    """
    draw, met = random.Random(seed), Counter[str]()
    wanted = ["features"] * (kills // 2) + ["training"] * (kills - kills // 2)
    while wanted:
        process, before = start(results), newest(results, wanted[0])
        while process.poll() is None and newest(results, wanted[0]) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is None:
            process.kill()
            process.wait()
            met[stage(results)] += 1
            wanted.pop(0)
            sys.stderr.write(f"{len(wanted)} left: {stage(results)}\n")
        else:
            finish(process, results)
        if stage(results) == "head finished" and wanted:
            raise Failure("the head was finished before the last kill: give it more to do")
        if wanted and wanted[0] == "features" and list(results.glob("features/*/index.json")):
            met["features begun again"] += 1
            for file in results.glob("features/*/*"):
                file.unlink()
    finish(start(results), results)
    return met


def newest(results: Path, part: str) -> tuple[int, str]:
    """What changes when a stage's work goes on: journals grow, checkpoints have other names."""
    files = sorted(results.glob(BEGUN[part]))
    try:
        return sum(file.stat().st_size for file in files), str(files[-1:])
    except FileNotFoundError:  # a checkpoint that was replaced in this moment
        return -1, ""


def compare(whole: Path, killed: Path) -> None:
    """Failure if the two folders have other results, or something unfinished is left."""
    for pattern in SAME:
        (one,), (other,) = list(whole.glob(pattern)), list(killed.glob(pattern))
        if one.read_bytes() != other.read_bytes():
            raise Failure(f"{pattern} differs")
    left = [*killed.glob("runs/*/training"), *killed.glob("features/*/journal-*")]
    left += [*killed.glob("**/.*.tmp")]
    if left:
        raise Failure(f"{left[0].name} is left")


def stress(kills: int, seed: int, folder: Path) -> list[str]:
    finish(start(folder / "whole"), folder / "whole")
    met = disturb(folder / "killed", kills, seed)
    compare(folder / "whole", folder / "killed")
    where = "; ".join(f"{name}: {met[name]}" for name in sorted(met))
    return [
        f"An attention head on quadrant features of {VIDEOS} embedded clips, {EPOCHS} epochs, on",
        "the CPU, saved every 0.1 s.",
        "",
        f"{kills} kills with SIGKILL (seed {seed}), each followed by a restart.",
        f"What they met: {where}.",
        "",
        "At the end the head, its curve and the features are byte-identical with those of the",
        "undisturbed run; no checkpoint, journal or temporary file is left.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    command = f"scripts/stress_head.py --kills {given.kills} --seed {given.seed}"
    work = partial(stress, given.kills, given.seed)
    return reported(given.report, command, work)


if __name__ == "__main__":
    sys.exit(main())
