"""The table of a real run, byte for byte: the embedded model on a few of the embedded scenes."""

from pathlib import Path
from tempfile import TemporaryDirectory

from samples import small_run

from asap.experiment.pipeline import run
from asap.report.result_table import build_table
from asap.report.table_parts import parts

GOLDEN = Path(__file__).parent / "golden" / "run.md"
SCENES = 24


def table_of_a_run(results: Path) -> str:
    """Accuracy, MACs and what the methods did, as Markdown; nothing is timed."""
    rows = (
        {"method": "dense"},
        {"method": "random_drop"},
        {"method": "tome", "with": {"r": 7}},
        {"method": "evit", "with": {"keep_rate": 0.4}},
        {"method": "asap", "with": {"tau": 3.0}},
        {"method": "asap_pruning", "with": {"tau": 3.0}},
    )
    _, found = run(small_run(results, *rows, data={"name": "digits"}, limit=SCENES))
    return "\n".join(part.to_markdown() for part in parts(build_table(found)))


def test_a_run_has_the_table_it_had(tmp_path: Path) -> None:
    """A change that is meant: `python tests/test_golden_run.py` writes the file again."""
    assert table_of_a_run(tmp_path) == GOLDEN.read_text("utf-8")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        GOLDEN.write_text(table_of_a_run(Path(folder)), "utf-8")
