"""Time the demo's rows several times on a busy machine, and report how well the runs agree.

    python scripts/bench_demo_speed.py --runs 3 --busy 4 --out results/bench/cpu/demo_speed

Each run is the demo's own timing in a new results folder, while `--busy` other processes compute
matrix products on one thread each. Writes every run's throughput records, all rows of all runs as
one CSV, and a summary; prints the summary. The goal: every run gives at least 11 of the 13 ratios,
and the largest ratio of a row is at most 1.04 times the smallest.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOAL = 1.04  # largest ratio of a row over its smallest
BUSY = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: a @ a"
FIELDS: tuple[str, ...] = (
    "run", "label", "ratio_fused", "lo", "hi", "q1", "q3", "cpu_share", "refused",
)  # fmt: skip


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run `count` other programs on the machine."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT) for _ in range(count)]
    try:
        time.sleep(10 if others else 0)  # until they have imported torch
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def timed(results: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """The throughput records of one run."""
    command = [sys.executable, "-m", "asap.run", "experiment=demo", "measure.accuracy=false"]
    command += ["device=cpu", f"results={results}", *overrides]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    paths = sorted(results.glob("runs/*/throughput.json"))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def line_of(run: int, record: dict[str, Any]) -> dict[str, Any]:
    """One row of the CSV."""
    ratio = record["ratio_fused"] or {}
    numbers = {name: ratio.get(name) for name in ("lo", "hi", "q1", "q3")}
    shared = {name: record[name] for name in ("label", "cpu_share", "refused")}
    return {"run": run, "ratio_fused": ratio.get("median"), **numbers, **shared}


def summary(lines: list[dict[str, Any]], about: list[str]) -> str:
    """The ratios of every row in every run, and how many rows agree."""
    runs = sorted({line["run"] for line in lines})
    found: dict[str, list[float]] = {}
    for line in lines:
        ratios = found.setdefault(line["label"], [])
        ratios += [] if line["ratio_fused"] is None else [line["ratio_fused"]]
    said = [*about, "", f"{'row':<48} ratios to fused dense, largest / smallest"]
    agree = 0
    for label, ratios in found.items():
        spread = max(ratios) / min(ratios) if len(ratios) == len(runs) else None
        agree += spread is not None and spread <= GOAL
        texts = " ".join(f"{ratio:.3f}" for ratio in ratios) or "none"
        said.append(f"{label:<48} {texts}  {'-' if spread is None else f'{spread:.3f}'}")
    given = [sum(x["run"] == run and x["ratio_fused"] is not None for x in lines) for run in runs]
    said += ["", f"ratios given, by run: {' '.join(map(str, given))} of {len(found)}"]
    said += [f"rows whose runs agree within {100 * (GOAL - 1):.0f} %: {agree} of {len(found)}"]
    return "\n".join(said) + "\n"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--busy", type=int, default=4, help="other processes on the machine")
    made.add_argument("--out", type=Path, required=True, help="folder of the records")
    made.add_argument("overrides", nargs="*", help="of the demo, such as measure.rounds=30")
    return made


def main() -> None:
    given = parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    command = ["scripts/bench_demo_speed.py", f"--runs {given.runs} --busy {given.busy}"]
    about = [" ".join([*command, *given.overrides])]
    with busy(given.busy):
        for run in range(1, given.runs + 1):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                records = timed(Path(folder), given.overrides)
            load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
            share = sorted(record["cpu_share"] for record in records)[len(records) // 2]
            about.append(
                f"run {run}: {time.monotonic() - began:.0f} s; load averages at its end {load}; "
                f"CPU time over wall time {share:.2f}"
            )
            lines += [line_of(run, record) for record in records]
            text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
            (given.out / f"run{run}.json").write_text(text, "utf-8")
    said = summary(lines, about)
    with (given.out / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    (given.out / "summary.txt").write_text(said, "utf-8")
    sys.stdout.write(said)


if __name__ == "__main__":
    main()
