"""Every make target on ImageNet, run as make would, on a few JPEG files with random weights."""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from in_process import Ended, quick, run_here
from omegaconf import OmegaConf
from PIL import Image

from asap.data.imagenet.validation import synsets
from asap.records.identity import method_of
from asap.report.paper import paper_table

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("deit-base", "deit-small", "deit-tiny", "vit-augreg", "lvvit-s")
TARGETS = (*(f"imagenet-{name}" for name in MAIN), "imagenet-all", "imagenet-anchors", "overhead")
TARGETS += ("imagenet-alpha", "imagenet-matched-macs")
SIDE = 8  # patches: PPT removes up to 55 of them in a block
SMALL = (
    "backbone.weights=random", "+backbone.model_args.embed_dim=24",
    "+backbone.model_args.num_heads=3", f"+backbone.model_args.img_size={8 * SIDE}",
    "+backbone.model_args.patch_size=8",
    "batch_size=3", "workers=0", "device=cpu", "limit=3", "calibrate.images=4",
    "calibrate.window=90", "measure.rounds=3", "measure.seconds=0.001",
    "measure.throughput_images=3",
)  # fmt: skip
TIMED = ("imagenet-deit-base", "overhead")  # one block of rows and one of its own kind
GRID = "calibrate.grid={tau: [1.0], clusters: [2]}"
HAND = "points.asap={tau: 1.0, clusters: 2}"
ATS = "++points.ats={samples: 8}"  # ++: of two blocks of the five
GIVEN = {  # some are calibrated, on a grid of one setting; the others get their points by hand
    "imagenet-alpha": [HAND],
    "imagenet-anchors": [HAND],
    "imagenet-vit-augreg": [GRID, ATS],
    "imagenet-lvvit-s": [GRID, ATS],
    "imagenet-all": [GRID, ATS],
    "imagenet-matched-macs": [
        "calibrate.grid={r: [8]}", "rows=[{method: dense}, {method: tome}]",
    ],
    "overhead": [],
}  # fmt: skip
BY_HAND = ("imagenet-alpha", "imagenet-anchors", "overhead")


@dataclass
class Desk:
    """One folder of results for all targets, so that a row that two of them have is run once."""

    folder: Path
    done: dict[str, Ended] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "image net"

    def table(self, stem: str, ending: str = "csv") -> str:
        return (self.folder / "results" / "tables" / f"{stem}.{ending}").read_text("utf-8")

    def rows(self, stem: str) -> list[dict[str, str]]:
        return list(csv.DictReader(self.table(stem).splitlines()))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Twelve JPEG files in the layout val/<wnid>/*.JPEG; no training images."""
    desk, rng = Desk(tmp_path_factory.mktemp("desk")), np.random.default_rng(0)
    for number in range(1, 13):
        folder = desk.data / "val" / synsets()[10 + number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((64, 48))
        picture.save(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    return desk


@pytest.fixture
def here(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys) -> Iterator[Callable[..., Ended]]:
    """`here(*arguments)`: what asap.run does with them, `SMALL` and `last`, in this process."""
    monkeypatch.setenv("LVVIT_S", "random")

    def call(*arguments: str, last: Sequence[str] = ()) -> Ended:
        results = f"results={desk.folder / 'results'}"
        return run_here(*arguments, *SMALL, results, *last, capsys=capsys)

    with quick():
        yield call


@pytest.fixture
def make(desk: Desk, here: Callable[..., Ended]) -> Callable[[str], str]:
    """`make(target)`: the output of the command that make prints for it."""

    def call(target: str) -> str:
        if target not in desk.done:
            given = GIVEN.get(target, [GRID])
            given = given if target in TIMED else [*given, "measure.throughput=false"]
            desk.done[target] = here(*command_of(target, desk.data), *given)
        code, out, err = desk.done[target]
        assert code == 0, err
        return " ".join(out.split())

    return call


def command_of(target: str, data: Path | str, *given: str) -> list[str]:
    """The arguments of asap.run in what make would do."""
    command = ["make", "-n", target, f"IMAGENET={data}", *given]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in printed.splitlines() if " -m asap.run " in line]
    return shlex.split(line.split(" -m asap.run ")[1])


# ---- what make does


def test_make_passes_on_paths_with_spaces_and_further_options() -> None:
    found = command_of("overhead", "/a b/c", 'ARGS=limit=10 "title=Two words"')
    assert found == ["experiment=overhead", "data.path='/a b/c'", "limit=10", "title=Two words"]


SIGNS = ("it's here", "a b", " a ", "a$b", "a$(b)", "a${b}", "a#b", "a(b),c", "é 日本", "a;b`c`",
         "a\\b", "a''b", 'a"b', "~a", "a=b&c", "[a]{b:c}", "a!b*?", "%a@", "-a")  # fmt: skip
ALL = "it's $a${b}, #1 (é)"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        *(("overhead", name) for name in SIGNS),
        *((target, ALL) for target in (*TARGETS, "throughput", "sweep-alpha")),
    ],
)
def test_make_takes_a_path_to_the_letter(target: str, name: str, tmp_path: Path) -> None:
    """What make runs, as its python gets it: a stub here."""
    stub = tmp_path / "it's$a" / "bin" / "python"
    stub.parent.mkdir(parents=True)
    said = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('LVVIT_S')]))"
    stub.write_text(f"#!{sys.executable}\n{said}\n")
    stub.chmod(0o755)
    (stub.parents[1] / ".stamp").touch()
    path = f"/x/{name}"
    given = [f"IMAGENET={path}", f"LVVIT_S={path}", f"VENV={stub.parents[1]}"]
    # Under `make test` this is a make inside another, which would tell of the folders it enters.
    command = ["make", "--no-print-directory", target, *given]
    command.append('ARGS="title=costs \\$5" limit=10')
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words, other = json.loads(done.stdout)
    (word,) = [word for word in words if word.startswith("data.path=")]
    value = OverridesParser.create().parse_override(word).value()
    read = OmegaConf.to_container(OmegaConf.create({"x": value}), resolve=True)
    assert read == {"x": path} and other == path
    assert words[-2:] == ["title=costs $5", "limit=10"]


def test_make_refuses_a_virtual_environment_that_it_cannot_name() -> None:
    command = ["make", "demo", "VENV=/x/a b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "/x/a b has blanks" in done.stderr


def test_make_joins_the_five_backbones_in_the_papers_order() -> None:
    found = command_of("imagenet-all", "/x")
    assert found[0] == "-m"
    models = dict.fromkeys(row["model"] for row in paper_table("image_classification"))
    names = [name.removeprefix("imagenet_") for name in found[1].split("=")[1].split(",")]
    titles = {"deit_base": "DeiT-Base", "deit_small": "DeiT-Small", "deit_tiny": "DeiT-Tiny"}
    titles |= {"vit_augreg": "ViT-AugReg", "lvvit_s": "LV-ViT-S"}
    assert [titles[name] for name in names] == list(models)


@pytest.mark.parametrize("target", TARGETS)
def test_without_imagenet_one_line_names_the_variable_and_the_layouts(target: str) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", target, "IMAGENET="],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for part in ("IMAGENET", "val/<wnid>/*.JPEG", "devkit", "ILSVRC2012_img_val.tar", "parquet"):
        assert part in done.stderr


# ---- what comes out


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_prints_a_table_that_says_what_it_is_worth(make, target: str) -> None:
    printed = make(target)
    assert "The weights are random: this table shows that the chain runs" in printed
    assert ("without the 6 of the calibration" in printed) == (target not in BY_HAND)
    assert ("Throughput on " in printed) == (target in TIMED)  # else there is no column of it


def test_points_by_hand_need_a_row_that_has_them(here, desk: Desk) -> None:
    code, _, said = here(*command_of("overhead", desk.data), HAND)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "points.asap={tau: 1.0, clusters: 2} is for no row of this run" in said


def test_a_calibrated_job_evaluates_the_rest_beside_one_that_evaluates_all(here, desk) -> None:
    """Jobs of a multirun share their images, but not what calibration has looked at."""
    free = "[{method: dense}, {method: tome, label: All, with: {r: 7}}]"
    bound = "[{method: tome, label: Rest, macs_pct: -35, grid: {r: [7]}}]"
    given = ["-m", "experiment=imagenet_deit_tiny", f"rows={free},{bound}"]
    path = f"data.path='{desk.data}'"
    code, out, err = here(*given, path, last=["limit=null", "measure=accuracy", "table=null"])
    assert code == 0, err
    seen = dict(re.findall(r"^\s*(All|Rest)[^:\n]*: top-1 .* n = (\d+)", out, re.MULTILINE))
    assert seen == {"All": "12", "Rest": "6"}


MODELS = dict(zip(MAIN, dict.fromkeys(r["model"] for r in paper_table("image_classification")), strict=True))  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("name", MAIN)
def test_a_block_has_the_papers_rows_in_its_order(make, desk: Desk, name: str) -> None:
    make(f"imagenet-{name}")
    model = MODELS[name]
    rows = desk.rows(f"{model.lower()}-on-imagenet-1k")
    printed = [row for row in paper_table("image_classification") if row["model"] == model]
    assert rows[0]["dense"] == "1" and float(rows[0]["paper_top1"]) == float(printed[0]["acc_base"])
    for row, paper in zip(rows[1:], printed, strict=True):
        assert row["model"] == model
        assert float(row["paper_top1"]) == float(paper["acc_reduced"]), row["method"]
        assert float(row["paper_flops_pct"]) == float(paper["flops_pct"]), row["method"]
        if paper["method"] != "DynamicViT":
            assert row["n"] == "3", row["method"]
            assert float(row["top1_minus_paper"]) == pytest.approx(
                float(row["top1"]) - float(paper["acc_reduced"])
            )


def test_a_method_without_its_weights_says_so_in_one_footnote(make, desk: Desk) -> None:
    make("imagenet-deit-base")
    first, *_ = desk.table("deit-base-on-imagenet-1k", "md").split("### Beside the paper")
    assert len(re.findall(r"^- .*DynamicViT-B/0.7 checkpoint", first, re.MULTILINE)) == 1


def test_what_calibration_found_stands_below_the_table(make, desk: Desk) -> None:
    make("imagenet-deit-base")
    text = desk.table("deit-base-on-imagenet-1k", "md")
    assert re.search(r"tau = [\d.]+, clusters = \d+; [+-][\d.]+ % MACs on 4 calibration", text)
    assert "The point of ASAP (pool.): tau = " in text
    assert "Not tuned, for want of training images: threshold = 0.0." in text


def test_all_backbones_end_in_one_table(make, desk: Desk) -> None:
    make("imagenet-all")
    rows = desk.rows("imagenet-1k--five-backbones")
    assert list(dict.fromkeys(row["model"] for row in rows)) == list(MODELS.values())
    assert len(rows) == 5 + len(paper_table("image_classification"))
    assert len(desk.rows("deit-tiny-on-imagenet-1k")) == 5  # a block has its own table too


def test_the_overhead_in_closed_form(make, desk: Desk) -> None:
    """P advances by an N x N product in every block but the first; nothing is reduced."""
    make("overhead")
    dense, walk = desk.rows("overhead-of-accumulation--deit-base-patch16-224-fb-in1k")
    n, depth = SIDE**2 + 1, 12
    assert float(walk["gmacs_method"]) == pytest.approx((depth - 1) * n**3 / 1e9)
    assert walk["gmacs_backbone"] == dense["gmacs_backbone"]
    assert (dense["paper_gmacs"], walk["paper_samples_per_sec"]) == ("17.6", "1077.52")


def test_anchors_share_a_point_and_equal_counts_keep_equally_many(make, desk: Desk) -> None:
    make("imagenet-anchors")
    rows = desk.rows("anchor-ablation-on-imagenet-1k")
    assert [row["paper_top1"] for row in rows if row["paper_top1"]] == [
        *("77.64", "81.68", "73.61", "82.57"),
    ]
    for block in (rows[:5], rows[5:]):
        random, sink = block[3:]
        assert random["method"] == "Random anchor, equal counts"
        assert random["final_tokens"] == sink["final_tokens"]
        assert options(desk, block[1]) | {"anchor": ""} == options(desk, block[2]) | {"anchor": ""}


def test_every_alpha_has_the_point_of_one_half(make, desk: Desk) -> None:
    make("imagenet-alpha")
    rows = desk.rows("laziness-on-imagenet-1k--deit-base")[1:]
    assert [row["paper_top1"] for row in rows] == [
        str(float(row["acc"])) for row in paper_table("alpha_sweep")
    ]
    found = [options(desk, row) for row in rows]
    assert [o["alpha"] for o in found] == [i / 10 for i in range(1, 10)]
    assert len({(o["tau"], o["clusters"]) for o in found}) == 1


def options(desk: Desk, row: dict[str, str]) -> dict:
    path = desk.folder / "results" / "runs" / row["key"] / "accuracy.json"
    return method_of(json.loads(path.read_text("utf-8")))["options"]


def test_throughput_takes_lists_and_ends_in_a_table_for_each_precision_and_batch(
    here, desk: Desk
) -> None:
    """Two backbones and two batch sizes, in one command, without an accuracy."""
    lists = ["backbone=deit_tiny,deit_small", "precision=fp32", "measure.throughput_batch_size=1,2"]
    rows = "rows=[{method: dense}, {method: tome, with: {r: 7}}]"
    given = [rows, "calibrate.macs_pct=null", "measure.opponents=[best]", "measure.latency_calls=2"]
    code, out, err = here(*command_of("throughput", desk.data), *lists, *given, "measure.threads=1")
    assert code == 0, err
    assert "Speed: Throughput on ImageNet, fp32, batch 2" in out
    for batch in ("1", "2"):
        rows = desk.rows(f"throughput-on-imagenet--fp32--batch-{batch}")
        assert [row["model"] for row in rows] == ["DeiT-Tiny"] * 2 + ["DeiT-Small"] * 2
        assert {row["infer_batch_size"] for row in rows} == {batch}
        assert [row["top1"] for row in rows] == [""] * 4
        for row in rows:
            assert row["engine_path"] and float(row["latency_p95_ms"]) > 0
            assert float(row["dense_best_per_sec"]) > 0 and row["dense_compiled_per_sec"] == ""
            assert (float(row["timed_macs_pct"]) < 100) == (row["method"] == "ToMe")


def test_throughput_without_imagenet_is_a_rehearsal_on_the_embedded_model() -> None:
    command = ["make", "-n", "throughput"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m asap.run experiment=throughput" in printed and "data.path" not in printed
