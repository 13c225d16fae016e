"""The command that times a large LLaVA: its rehearsal on a CPU. No test looks at a time."""

import csv
from pathlib import Path

import bench_vlm
import pytest


def test_the_rehearsal_measures_every_candidate(tmp_path: Path, capsys) -> None:
    """Of 16 visual rows methods of the tower leave 8; pruners leave them to the first layers."""
    given = ["--dry", "--questions", "2", "--warm", "1", "--out", str(tmp_path)]
    assert bench_vlm.main(given) == 0
    lines = (tmp_path / "vlm.csv").read_text("utf-8").splitlines()
    rows = {row["model"]: row for row in csv.DictReader(lines)}
    before = {name: int(row["visual_rows"]) for name, row in rows.items()}
    assert before == {
        "full": 16, "ASAP": 8, "VisionZip": 8, "VisPruner": 8, "PruneSID": 8, "FastV": 16,
        "SparseVLM": 16,
    }  # fmt: skip
    assert rows["FastV"]["mean_layer_rows"] == f"{(2 * 78 + 4 * 63) / 6:.1f}"
    assert {row["label"] for row in rows.values()} == {"random weights, block 3 forced"}
    assert all(float(row["first_token_ms"]) > 0 for row in rows.values())
    said = capsys.readouterr().out
    assert any(words in said for words in ("agree with one another", "too few questions"))


def test_the_rehearsal_of_llava_next_has_five_crops(tmp_path: Path) -> None:
    given = ["--dry", "--next", "--questions", "2", "--warm", "0", "--out", str(tmp_path)]
    assert bench_vlm.main(given) == 0
    lines = (tmp_path / "vlm-next.csv").read_text("utf-8").splitlines()
    before = {row["model"]: int(row["visual_rows"]) for row in csv.DictReader(lines)}
    others = dict.fromkeys(("ASAP", "VisionZip", "VisPruner", "PruneSID"), 40)
    assert before == {"full": 80, **others}


def test_sizes_are_those_of_llava_7b() -> None:
    sizes = bench_vlm.Sizes()
    made = bench_vlm.candidates(sizes)
    assert sizes.patches == 576 and len(made) == 7
    assert made["FastV"][1] == bench_vlm.FastV(2, 30)
    assert made["VisionZip"][0] == bench_vlm.VisionZip(54, 10)


@pytest.mark.parametrize(
    "given, said", [([], "--dry"), (["--dry", "--questions", "1"], "quartiles")]
)
def test_what_cannot_be_measured_is_one_line(given, said, capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench_vlm.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        bench_vlm.main(given)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
