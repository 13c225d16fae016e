"""The table of some made records, byte for byte: what a terminal, a reader and a program get."""

from pathlib import Path

import pytest
from made import ASAP, cell, frame

from asap.report.latex import to_latex
from asap.report.printed import printed
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.report.timm_csv import to_timm_csv

GOLDEN = Path(__file__).parent / "golden"
WRONG = [[1, 0], [0, 1]]  # classes, best first, of two images of class 0


def forms() -> dict[str, str]:
    """Every form of one table, by file name."""
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


@pytest.mark.parametrize("name", FORMS)
def test_a_table_has_the_bytes_it_had(name: str) -> None:
    """A change that is meant: `python tests/test_golden.py` writes the files again."""
    assert FORMS[name] == (GOLDEN / name).read_text("utf-8")


if __name__ == "__main__":
    for name, text in FORMS.items():
        (GOLDEN / name).write_text(text, "utf-8")
