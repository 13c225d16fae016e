"""Names the benchmarks that a folder has, as data=<names> takes them.

    python scripts/benchmarks_in.py /data/eval                      gqa,mme,pope
    python scripts/benchmarks_in.py /data/eval --table llava_next   only those of that table

The folder is laid out as LLaVA's docs/Evaluation.md says (playground/data/eval). Those that it does
not have are named on standard error. Exit code 2 if it has none.
"""

import argparse
import sys
from pathlib import Path

from asap.data.open import DATA_SETS
from asap.data.questions.benchmark_files import BenchmarkOptions
from asap.report.benchmarks.named import BENCHMARKS
from asap.report.paper import ANSWERS, paper_table
from asap.spec.paths import path_argument


def main(arguments: list[str] | None = None) -> int:
    """Print the names, in the order of the paper's table. The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("--table", default="llava15", choices=ANSWERS, help="of results/paper")
    given = parser.parse_args(arguments)
    folder: Path = given.folder
    if not folder.is_dir():
        sys.stderr.write(
            f"error: {folder} is not a folder: give the one that holds the benchmarks\n"
        )
        return 2
    asked = [one for one in BENCHMARKS if one.column in paper_table(given.table)[0]]
    names = {one.data: options_of(one.data) for one in asked}
    there = [name for name, kind in names.items() if kind.found_in(folder) is not None]
    missing = [
        f"{n} (a folder {' or '.join(k.folders)})" for n, k in names.items() if n not in there
    ]
    if not there:
        sys.stderr.write(f"error: {folder} has no benchmark: give it {', '.join(missing)}\n")
        return 2
    if missing:
        sys.stderr.write(f"{folder} does not have {', '.join(missing)}\n")
    sys.stdout.write(f"{','.join(there)}\n")
    return 0


def options_of(name: str) -> type[BenchmarkOptions]:
    """The options of a benchmark, which know the names of its folder."""
    kind = DATA_SETS[name]
    assert issubclass(kind, BenchmarkOptions)
    return kind


if __name__ == "__main__":
    sys.exit(main())
