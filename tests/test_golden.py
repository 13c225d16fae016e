"""Tables byte for byte: of made records in every form, and of a real run of the embedded model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from made import ASAP, cell, frame
from samples import small_run

from asap.experiment.pipeline import run
from asap.report.latex import to_latex
from asap.report.printed import printed
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.report.timm_csv import to_timm_csv

GOLDEN = Path(__file__).parent / "golden"
WRONG = [[1, 0], [0, 1]]  # classes, best first, of two images of class 0


def forms() -> dict[str, str]:
    """Every form of one table, by file name: what a terminal, a reader and a program get."""
    results = [
        cell("dense", 100.0, 2.0, None, "Dense", frame()),
        cell("tome", 50.0, 1.3, {"r": 8}, "ToMe", frame(top5=WRONG), note="A note of the row."),
        cell("asap", 100.0, 1.31, ASAP, "ASAP (pool.)", frame(stop_block=[1, 2])),
        cell("asap", 50.0, 1.2, {**ASAP, "anchor": "quiet"}, "Quiet", frame(top5=WRONG), ours=True),
        cell(
            "ppt",
            100.0,
            1.1,
            {},
            "A method with a long name that takes more than one line",
            frame(),
        ),
    ]
    table = build_table(results, ["A remark on the whole table."])
    pieces = parts(table)
    return {
        "printed.txt": printed(table, "Golden", 100),
        "table.md": "\n".join(piece.to_markdown() for piece in pieces),
        "table.csv": table.to_csv(),
        "table.tex": to_latex(pieces),
        "timm.csv": to_timm_csv(results),
    }


FORMS = forms()


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
    _, found = run(small_run(results, *rows, data={"name": "digits"}, limit=24))
    return "\n".join(part.to_markdown() for part in parts(build_table(found)))


@pytest.mark.parametrize("name", FORMS)
def test_a_table_has_the_bytes_it_had(name: str) -> None:
    """A change that is meant: `python tests/test_golden.py` writes the files again."""
    assert FORMS[name] == (GOLDEN / name).read_text("utf-8")


def test_a_run_has_the_table_it_had(tmp_path: Path) -> None:
    assert table_of_a_run(tmp_path) == (GOLDEN / "run.md").read_text("utf-8")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        FORMS["run.md"] = table_of_a_run(Path(folder))
    for name, text in FORMS.items():
        (GOLDEN / name).write_text(text, "utf-8")
