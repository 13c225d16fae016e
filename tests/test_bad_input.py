"""Bad input: exit code 2 and one clear line, or a recorded and counted failure; no wrong number.

A case is a command line; most run in this process, a few as real commands.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
import torch
from in_process import quick, run_here
from PIL import Image
from safetensors.torch import load_file, save_file

import asap.publish.run_outputs
from asap.backbones.weights.load import BUNDLED_FOLDER
from asap.errors import one_line
from asap.methods import registry
from asap.report.figures.charts import charts

FOUR_SCENES = ("data.images=4", "method.tau=2.0")
OTHER_BACKBONE = ("backbone.sha256=null", "backbone.weights=random")


@dataclass(frozen=True)
class Result:
    """How a command ended: exit code, standard output, standard error, its results folder."""

    code: int
    out: str
    err: str
    results: Path

    def refused(self, *parts: str) -> None:
        """Assert exit code 2, one line on standard error that has all `parts`, and no record."""
        lines = self.err.splitlines()
        assert self.code == 2 and len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 600, lines[0]
        for part in parts:
            assert part in lines[0], lines[0]
        assert "Traceback" not in self.out and "HYDRA_FULL_ERROR" not in self.err
        assert list(self.results.glob("runs/*/accuracy.json")) == []
        assert list(self.results.glob("tables/*")) == []

    def record(self) -> dict:
        """The only accuracy record."""
        (path,) = self.results.glob("runs/*/accuracy.json")
        return json.loads(path.read_text("utf-8"))

    def records(self) -> dict[str, dict]:
        """The accuracy records by their labels."""
        paths = self.results.glob("runs/*/accuracy.json")
        found = [json.loads(path.read_text("utf-8")) for path in paths]
        return {record["label"]: record for record in found}

    def answers(self) -> pd.DataFrame:
        (path,) = self.results.glob("runs/*/answers.parquet")
        return pd.read_parquet(path)


Cli = Callable[..., Result]


@pytest.fixture
def cli(capsys, tmp_path) -> Iterator[Cli]:
    """`cli(*arguments)` is `python -m asap.run *arguments results=...` in this process, without
    figures, and without the seconds in which a timing warms up.
    """
    environment = dict(os.environ)
    results = tmp_path / "results"

    def call(*arguments: str) -> Result:
        given = [] if any(a.startswith("results=") for a in arguments) else [f"results={results}"]
        given += [] if any(a.startswith("baseline=") for a in arguments) else ["baseline=false"]
        return Result(*run_here(*arguments, *given, capsys=capsys), results)

    with quick(short=True):
        yield call
    os.environ.clear()
    os.environ.update(environment)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real command."""
    return subprocess.run(
        [sys.executable, "-m", "asap.run", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


def test_the_default_runs(cli):
    done = cli(*FOUR_SCENES)
    assert (done.code, done.err) == (0, "")
    assert done.record()["n"] == 4


# ---- names, keys and values


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("nokey=3", ["'nokey'", "--help"]),
        ("batchsize=3", ["'batchsize'", "did you mean 'batch_size'"]),
        ("+batchsize=3", ["'batchsize'", "did you mean 'batch_size'"]),
        ("data.imagse=3", ["'data.imagse'", "did you mean 'data.images'"]),
        ("method.taus=3", ["'method.taus'", "did you mean 'method.tau'"]),
        ("+method.taus=3", ["'asap'", "'taus'", "did you mean 'tau'"]),
        ("key", ["'key'", "form key=value"]),
        ("baseline=maybe", ["baseline='maybe'", "true or false"]),
        ("method=asapp", ["method/asapp", "asap_pruning"]),
        ("backbone=deit_bas", ["backbone/deit_bas", "deit_base"]),
        ("data=imagnet", ["data/imagnet", "imagenet"]),
        ("measure=ful", ["measure/ful", "throughput"]),
        ("experiment=dmo", ["experiment/dmo", "demo"]),
        ("backbone=null", ["does not compose", "cannot be null"]),
        ("method.name=asapp", ["'asapp'", "did you mean 'asap'"]),
        ("method.name=../x", ["'../x'", "dotted path"]),
        ("method.name=os", ["'os'", "subclasses of Method"]),
        ("method.name=3", ["'3'", "dotted path"]),
        ("data.name=digit", ["'digit'", "folder"]),
        ("backbone.name=digits_vlt", ["'digits_vlt'", "digits_vit"]),
        ("backbone.model_args=3", ["model_args=3", "group"]),
        ("backbone.model_args.dephth=3", ["dephth"]),
        ("method.tau=0", ["tau=0.0", "above 0"]),
        ("method.alpha=nan", ["alpha=nan", "(0, 1]"]),
        ("method.min_block=20", ["min_block=20", "at most 11", "'digits_vit'"]),
        ("method=zero_tprune method.layers=[1,3,6,9,13]", ["(1, 3, 6, 9, 13)", "at most 12"]),
        ("method=dynamicvit", ["weights=None", "one of its checkpoints", "'digits_vit'"]),
        ("method=random_drop method.block=40", ["block=40", "below 12"]),
        ("precision=fp8", ["'fp8'", "bf16"]),
        ("device=gpu", ["'gpu'", "auto, cpu, cuda"]),
        ("device=meta", ["'meta'", "auto, cpu, cuda"]),
        ("batch_size=0", ["batch_size=0", "1 or more"]),
        ("batch_size=many", ["batch_size='many'", "integer"]),
        ("workers=-1", ["workers=-1", "0 or more"]),
        ("limit=0", ["limit=0", "1 or more"]),
        ("seed=-1", ["seed=-1", "0 or more"]),
        ("shard_seconds=0", ["shard_seconds=0", "above 0"]),
        ("data.images=-5", ["data.images=-5", "1 or more"]),
        ("data.seed=-1", ["data.seed=-1", "0 or more"]),
        ("data.split=eval", ["data.split='eval'", "evaluation"]),
        ("data.path=/my/images", ["data.path", "data=folder"]),
        ("measure.rounds=0", ["measure.rounds=0", "3 or more"]),
        ("measure.seconds=nan", ["measure.seconds=nan", "above 0"]),
        ("measure.throughput_batch_size=0", ["throughput_batch_size=0", "1 or more"]),
        ("measure.accuracy=false", ["measure.accuracy", "set one to true"]),
        ("log.wandb=on", ["'on'", "offline"]),
        ("title=//", ["'//'", "a letter"]),
        ("title=${nowhere}", ["nowhere", """to the letter: 'title="\\${nowhere}"'"""]),
        ("table=//", ["table='//'", "a letter"]),
        ("remarks=text", ["'text'", "list"]),
        ("rows=asap", ["rows='asap'", "list"]),
        ("rows=[asap]", ["rows[0]='asap'", "group"]),
        ("rows=[{method:nope}]", ["'nope'", "random_drop"]),
        ("rows=[{method:asap,wth:{tau:2}}]", ["'wth'", "with"]),
        ("rows=[{method:asap,with:{tua:2}}]", ["'tua'", "did you mean 'tau'"]),
        ("rows=[{method:asap,with:3}]", ["with=3", "group"]),
        ("rows=[{method:asap,label:3}]", ["label=3", "text"]),
        ("-m method=asap,nope", ["method/nope", "asap_pruning"]),
        ("results=/dev/null", ["/dev/null/runs", "another results folder"]),
        ("results=/proc/none", ["/proc/none", "another results folder"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_refused(cli, arguments, parts):
    """Of a method's options a few: test_bad_options.py has them all."""
    cli(*arguments.split()).refused(*parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(cli):
    cli("device=cuda").refused("'cuda'", "device=cpu")


def test_the_row_of_an_experiment_with_an_unknown_key_is_refused(cli, tmp_path):
    experiment = tmp_path / "own" / "experiment"
    experiment.mkdir(parents=True)
    head = "# @package _global_\ndata: {images: 4}\nrows:\n  - {method: dense}\n"
    (experiment / "mine.yaml").write_text(head + "  - {method: asap, wiht: {tau: 2.0}}\n")
    (experiment / "torn.yaml").write_text(head + "  - {method: asap\n")
    (experiment / "key.yaml").write_text(head + "precison: fp16\n")
    folder = f"--config-dir={tmp_path / 'own'}"
    cli(folder, "experiment=mine").refused("'wiht'", "with")
    cli(folder, "experiment=torn").refused("does not compose", "torn.yaml")
    cli(folder, "experiment=key").refused("'precison'", "did you mean 'precision'")
    cli("--config-dir=/nowhere/at/all", "experiment=key").refused("/nowhere/at/all")


@pytest.mark.parametrize("content", ["- a\n- b\n", "name: [asap\n", "name: ${gone}\n", ""])
def test_a_damaged_method_config_is_refused(cli, content, tmp_path):
    folder = tmp_path / "own" / "method"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(content)
    done = cli(f"--config-dir={folder.parent}", "rows=[{method: mine}]")
    done.refused("mine.yaml" if content else "method.name")


def test_the_weights_of_a_backbone_are_no_checkpoint_of_dynamicvit(cli):
    path = BUNDLED_FOLDER / "digits_vit.safetensors"
    done = cli("method=dynamicvit", f"method.weights={path}")
    done.refused(str(path), "no checkpoint of DynamicViT", "method.weights")


# ---- weights


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(BUNDLED_FOLDER / "digits_vit.safetensors")


def own(path: Path) -> tuple[str, ...]:
    """Arguments that use a weights file of one's own."""
    return (*FOUR_SCENES, f"backbone.weights={path}", "backbone.sha256=null")


def test_a_copy_of_the_weights_runs(cli, weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    assert cli(*own(tmp_path / "w.safetensors")).code == 0


def test_missing_weights_are_refused(cli, tmp_path):
    cli(*own(tmp_path / "none.safetensors")).refused("none.safetensors", "backbone.weights")
    cli(*own(tmp_path)).refused(str(tmp_path), "backbone.weights")


def test_data_that_are_not_there_are_told_before_weights_are_sought(cli, tmp_path):
    weights = ("backbone=deit_base", f"backbone.weights={tmp_path / 'none.pth'}")
    cli(*weights, "data=imagenet", "data.path=/nowhere").refused("/nowhere", "val/<wnid>")
    cli(*weights, "data=imagenet", f"data.path={tmp_path}").refused("none.pth")


def test_weights_with_another_digest_are_refused(cli, weights, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({**weights, "cls_token": weights["cls_token"] + 1}, path)
    wanted = "69e55e51" * 8
    cli(*own(path)[:-1], f"backbone.sha256={wanted}").refused("w.safetensors", wanted, "sha256")
    cli("backbone.sha256=00").refused("digits_vit.safetensors", "sha256")


def spoilt(weights: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """The weights with one thing wrong."""
    weights = dict(weights)
    match how:
        case "nan":
            weights["blocks.3.mlp.fc1.bias"] = weights["blocks.3.mlp.fc1.bias"] * float("nan")
        case "infinite":
            weights["norm.weight"] = weights["norm.weight"] / 0
        case "missing":
            del weights["blocks.3.mlp.fc1.bias"]
        case "extra":
            weights["blocks.3.mlp.fc3.bias"] = torch.zeros(4)
        case "shape":
            weights["blocks.3.mlp.fc1.bias"] = torch.zeros(7)
        case "positions":
            weights["pos_embed"] = torch.zeros(1, 50, 96)
        case "classes":
            weights["head.weight"] = torch.zeros(7, 96)
            weights["head.bias"] = torch.zeros(7)
    return weights


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("nan", "blocks.3.mlp.fc1.bias"),
        ("infinite", "norm.weight"),
        ("missing", "1 missing, first blocks.3.mlp.fc1.bias"),
        ("extra", "1 unexpected, first blocks.3.mlp.fc3.bias"),
        ("shape", "blocks.3.mlp.fc1.bias is (7,), not (384,)"),
        ("positions", "pos_embed is (1, 50, 96)"),
        ("classes", "head.weight is (7, 96), not (10, 96)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(cli, weights, how, part, tmp_path):
    save_file(spoilt(weights, how), tmp_path / "w.safetensors")
    cli(*own(tmp_path / "w.safetensors")).refused(part)


def test_weights_in_an_outer_module_or_an_unknown_entry_are_refused_with_the_remedy(
    cli, weights, tmp_path
):
    outer = {f"model.net.{key}": value for key, value in weights.items()} | {"loss": torch.ones(1)}
    save_file(outer, tmp_path / "w.safetensors")
    cli(*own(tmp_path / "w.safetensors")).refused("with 'model.net.' before their names: save")
    torch.save({"net": weights, "epoch": 3}, tmp_path / "w.pth")
    cli(*own(tmp_path / "w.pth")).refused("state_dict, model), but in net: save that entry alone")


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_run(cli, suffix, zipped, tmp_path):
    path, trace = tmp_path / f"w{suffix}", tmp_path / "executed"
    if zipped:
        torch.save({"model": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Bomb(trace)}))
    cli(*own(path)).refused(f"w{suffix}")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello\n" * 99, b"version https://git-lfs\n", bytes(64)])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_holds_no_weights_is_refused(cli, content, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    cli(*own(path)).refused(f"w{suffix}")


@pytest.mark.parametrize("kept", [4, 500, 100_000])
def test_truncated_weights_are_refused(cli, kept, tmp_path):
    whole = (BUNDLED_FOLDER / "digits_vit.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:kept])
    cli(*own(tmp_path / "w.safetensors")).refused("w.safetensors", "cannot be read")


def test_a_checkpoint_without_tensors_is_refused(cli, tmp_path):
    torch.save({"epoch": 3, "model": {"names": ["a"]}}, tmp_path / "w.pth")
    cli(*own(tmp_path / "w.pth")).refused("w.pth", "no state dict")


def test_hub_weights_without_network_are_refused(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    cli("backbone=deit_tiny").refused("deit_tiny", "HF_HUB_OFFLINE", "backbone.weights=/path")


# ---- models


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("resnet18", "type ResNet"),
        ("swin_tiny_patch4_window7_224", "type SwinTransformer"),
        ("eva02_tiny_patch14_224", "type Eva"),
        ("beit_base_patch16_224 backbone.model_args.depth=1", "type Beit"),
        ("vit_small_patch16_18x2_224 backbone.model_args.depth=1", "ParallelThingsBlock"),
        ("vit_base_patch16_siglip_224 backbone.model_args.depth=1", "global_pool='map'"),
    ],
)
def test_a_model_that_is_no_plain_vit_is_refused(cli, name, part):
    cli(*f"backbone.name={name}".split(), *OTHER_BACKBONE).refused(name.split()[0], part, "support")


NO_CLASS_TOKEN = (
    "backbone.name=vit_tiny_patch16_224",
    "backbone.model_args.class_token=false",
    "backbone.model_args.global_pool=avg",
    "backbone.model_args.depth=2",
    "backbone.model_args.num_classes=10",
    *OTHER_BACKBONE,
)


def test_a_sink_asked_of_a_model_without_class_token_is_refused(cli):
    cli(*NO_CLASS_TOKEN).refused("anchor='sink'", "class token", "anchor='mass'")
    assert cli(*NO_CLASS_TOKEN, "method.anchor=mass", "data.images=2").code == 0


def test_weights_for_other_classes_than_the_data_has_are_refused(cli):
    other = ("backbone.name=vit_tiny_patch16_224", "backbone.model_args.depth=1")
    cli(*other, *OTHER_BACKBONE, *FOUR_SCENES).refused("1000 classes", "has 10", "trained for")


# ---- folders of images


def picture(size: int = 32, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path) -> Path:
    """One picture in each of ten class folders."""
    root = tmp_path / "pictures"
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        picture(seed=label).save(root / str(label) / "a.png")
    return root


def images(root: Path) -> tuple[str, ...]:
    return ("data=folder", f"data.path={root}", "method.tau=2.0")


def test_a_folder_of_images_runs(cli, folder):
    done = cli(*images(folder))
    assert (done.code, done.err, done.record()["n"]) == (0, "", 10)


def test_what_is_left_out_of_a_folder_is_said_in_log_record_and_tables(cli, folder):
    clean = cli(*images(folder)).record()
    assert clean["files_left_out"] == {}
    (folder / "0" / "again").symlink_to("..")
    (folder / "1" / "b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (folder / "@eaDir").mkdir()
    picture().save(folder / "@eaDir" / "thumb.png")
    (folder / "2" / "one.jfif").write_bytes((folder / "2" / "a.png").read_bytes())
    done = cli(*images(folder), "limit=11")
    found = {record["n"]: record for record in (json.loads(path.read_text("utf-8")) for path in
             done.results.glob("runs/*/accuracy.json"))}  # fmt: skip
    left = {".heic": 1, "second names": 1, "hidden and system files": 1}
    assert found[11]["files_left_out"] == left
    said = "1 .heic, 1 hidden and system file, 1 second name"
    assert said in done.err and said in " ".join(done.out.split())
    stem = done.results / "tables" / "digits-vit-on-folder"
    for file in (f"{stem}.md", f"{stem}.csv", done.results / "report.html"):
        assert said in Path(file).read_text("utf-8")
    (folder / "2" / "one.jfif").unlink()
    again = cli(*images(folder))  # the record of the first run, with what lies there now
    assert said in " ".join(again.out.split())


def test_a_folder_that_is_not_there_is_refused(cli, tmp_path, folder):
    cli("data=folder").refused("data.path", "sub-folder")
    cli(*images(tmp_path / "none")).refused("none", "not a folder")
    cli(*images(folder / "0" / "a.png")).refused("a.png", "not a folder")


def test_a_folder_without_classes_or_images_is_refused(cli, tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    cli(*images(empty)).refused("empty", "holds no image", "sub-folder")
    picture().save(empty / "flat.png")
    cli(*images(empty)).refused("empty", "holds no image", "sub-folder")
    (folder / "unused").mkdir()
    cli(*images(folder)).refused("'unused'", "without an image")


def test_other_classes_than_the_model_has_are_refused(cli, folder):
    (folder / "ten").mkdir()
    picture().save(folder / "ten" / "a.png")
    cli(*images(folder)).refused("10 classes", "has 11")


def test_a_split_that_folders_do_not_have_is_refused(cli, folder):
    cli(*images(folder), "data.split=train").refused("'data.split'", "only for data=digits")


def test_imagenet_without_its_folder_is_refused(cli, monkeypatch, tmp_path):
    monkeypatch.delenv("IMAGENET", raising=False)
    cli("data=imagenet").refused("IMAGENET", "val/<wnid>")
    monkeypatch.setenv("IMAGENET", str(tmp_path / "none"))
    cli("data=imagenet").refused("none", "val/<wnid>")


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (["val/1.JPEG"], "holds no image"),
        (["val/tench/1.JPEG"], "'tench'"),
        (["val/n00000001/1.JPEG"], "'n00000001'"),
        (["train/n01440764/1.JPEG"], "'train'"),
        ([f"val/n01440764/{i}.JPEG" for i in range(51)], "51 images"),
    ],
)
def test_another_layout_than_imagenets_is_refused(cli, files, part, tmp_path):
    for name in files:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / "set" / name)
    cli("data=imagenet", f"data.path={tmp_path / 'set'}").refused(part, "val/<wnid>/*.JPEG")


# ---- single images


def test_unreadable_images_are_counted_and_left_out(cli, folder):
    jpeg = folder / "9" / "whole.jpg"
    picture(64).save(jpeg)
    (folder / "0" / "truncated.JPEG").write_bytes(jpeg.read_bytes()[:700])
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(folder / "1" / "16bit.png")
    picture(1).save(folder / "2" / "pixel.png")
    (folder / "3" / "text.JPEG").write_text("no picture\n")
    (folder / "4" / "nothing.png").touch()
    (folder / "5" / "gone.png").symlink_to(folder / "nowhere.png")
    picture().convert("CMYK").save(folder / "6" / "cmyk.jpg")

    done = cli(*images(folder))
    assert (done.code, done.err) == (0, "")
    record = done.record()
    assert (record["n"], record["n_failed"]) == (12, 6)
    assert record["top1"] == pytest.approx(100 * record["correct1"] / 12)

    frame = done.answers().set_index("path")
    reasons = frame["error"].dropna()
    assert {path: reason.split(" (")[0] for path, reason in reasons.items()} == {
        "0/truncated.JPEG": "truncated or damaged",
        "1/16bit.png": "more than 8 bits a pixel",
        "2/pixel.png": "1 x 1 pixels: each side needs at least 2",
        "3/text.JPEG": "not an image in a known format",
        "4/nothing.png": "not an image in a known format",
        "5/gone.png": "truncated or damaged",
    }
    assert all("\n" not in reason and str(folder) not in reason for reason in reasons)
    assert list(frame["top5"][reasons.index].map(len).unique()) == [0]
    assert len(frame["top5"]["6/cmyk.jpg"]) == 5

    assert "12 (6 failed)" in done.out
    table = next((done.results / "tables").glob("*.md")).read_text("utf-8")
    assert "12 (6 failed)" in table


def test_failed_images_do_not_change_the_others(cli, folder, tmp_path):
    (folder / "3" / "text.JPEG").write_text("no picture\n")
    rows = "rows=[{method: dense}, {method: asap, with: {tau: 2.0}}]"
    some = cli(*images(folder)[:2], rows, "batch_size=4").records()
    (folder / "3" / "text.JPEG").unlink()
    none = cli(*images(folder)[:2], rows, f"results={tmp_path / 'other'}")
    assert none.code == 0
    paths = (tmp_path / "other").glob("runs/*/accuracy.json")
    others = [json.loads(path.read_text("utf-8")) for path in paths]
    assert {r["label"]: r["top1"] for r in others} == {k: r["top1"] for k, r in some.items()}
    assert {r["n_failed"] for r in some.values()} == {1}


def test_images_of_which_none_can_be_read_are_refused_until_repaired(cli, folder):
    whole = {path: path.read_bytes() for path in folder.glob("*/*.png")}
    for path, content in whole.items():
        path.write_bytes(bytes(len(content)))  # the same size: the digest cannot tell
    cli(*images(folder)).refused("none of the 10 images", "0/a.png", "not an image", "data.path")
    for path, content in whole.items():
        path.write_bytes(content)
    assert cli(*images(folder)).record()["n"] == 10


# ---- results folders


def test_a_results_path_that_is_a_file_is_refused(cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    cli(f"results={tmp_path / 'taken'}").refused("taken", "another results folder")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_results_folder_is_refused(cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    cli(f"results={tmp_path / 'locked'}").refused("locked", "another results folder")


@pytest.mark.parametrize(
    ("number", "step"),
    [(ENOSPC, 0), (ENOSPC, 1), (ENOSPC, 3), (ENOSPC, 5), (EROFS, 1), (EDQUOT, 3), (EACCES, 1)],
)
def test_a_disk_that_refuses_at_any_step_leaves_nothing_torn(cli, number, step, monkeypatch):
    true, calls = os.fsync, iter(range(step))

    def refuse(descriptor: int) -> None:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number))
        true(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        done = cli(*FOUR_SCENES)
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert os.strerror(number) in done.err and "another results folder" in done.err
    assert not list(done.results.rglob("*.tmp"))
    again = cli(*FOUR_SCENES)
    assert (again.code, again.record()["n"]) == (0, 4)


def test_a_place_for_a_multiruns_table_that_is_taken_is_told(cli, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tables").write_text("mine")
    done = cli("-m", "data.images=4", "method.tau=2.0,2.5")
    assert done.code == 1 and "Traceback" not in done.err
    assert "tables" in done.err.splitlines()[0]
    assert len(list(done.results.glob("runs/*/accuracy.json"))) == 2


@pytest.mark.parametrize("place", ["tables", "figures"])
def test_a_place_for_tables_or_figures_that_is_taken_is_one_line(cli, place, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / place).write_text("mine")
    with pytest.MonkeyPatch.context() as patch:  # undone before the patches of `cli`
        patch.setattr(asap.publish.run_outputs, "charts", charts)
        done = cli(*FOUR_SCENES)
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert place in done.err
    assert done.record()["n"] == 4  # it is only the table that is missing


# ---- methods of one's own

HEAD = """
from dataclasses import dataclass
import torch
from asap.methods.base import Decision, Method, keep_only

@dataclass(frozen=True)
class Mine(Method):
    x: int = 1
    def reduce(self, site, chosen):
"""
KINDS = {
    "broken_raises": HEAD + "        raise KeyError('no\\nsuch thing')\n",
    "broken_nan": HEAD
    + "        n = site.length\n"
    + "        target = torch.arange(n).repeat(len(site.images), 1)\n"
    + "        weight = torch.full(target.shape, float('nan'))\n"
    + "        return Decision(target, n, weight)\n",
    "broken_once": HEAD
    + "        if site.image_ids is None or 2 not in site.image_ids:\n"
    + "            return None\n"
    + "        n = site.length\n"
    + "        target = torch.arange(n).repeat(len(site.images), 1)\n"
    + "        weight = torch.ones(target.shape)\n"
    + "        weight[site.image_ids.index(2)] = float('nan')\n"
    + "        return Decision(target, n, weight)\n",
    "broken_lengths": HEAD
    + "        target = torch.arange(site.length).repeat(len(site.images), 1)\n"
    + "        return Decision(target, site.length - 9)\n",
    "broken_shape": HEAD + "        return Decision(torch.zeros(1, 3).long(), 1)\n",
    "broken_type": HEAD + "        return 'everything'\n",
}
IMPORTS = {
    "broken_syntax": ("def decide(:\n", "SyntaxError"),
    "broken_import": ("import no_such_package_at_all\n", "no_such_package_at_all"),
    "broken_start": ("1 / 0\n", "ZeroDivisionError"),
    "broken_empty": ("x = 3\n", "0 subclasses"),
    "broken_two": (HEAD + "        pass\nclass Other(Mine): pass\n", "2 subclasses"),
}


BUILT = {
    "broken_plain": (
        "from asap.methods.base import Method\nclass Mine(Method):\n    x: int = 1\n",
        "no option 'x' (it has none: annotated fields of a @dataclass(frozen=True)",
    ),
    "broken_post": (
        HEAD + "        pass\n    def __post_init__(self): object.__setattr__(self, 'x', [1])\n",
        "super().__post_init__()",
    ),
}


@pytest.fixture
def own_folder(monkeypatch, tmp_path) -> Iterator[Path]:
    """A current folder with one's own method files and configs."""
    folder = tmp_path / "project"
    (folder / "configs" / "method").mkdir(parents=True)
    refused = {k: text for k, (text, _) in {**IMPORTS, **BUILT}.items()}
    for name, text in {**KINDS, **refused}.items():
        (folder / f"{name}.py").write_text(text)
        (folder / "configs" / "method" / f"{name}.yaml").write_text(f"name: {name}\nx: 1\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    for name in (*KINDS, *IMPORTS, *BUILT):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", IMPORTS)
def test_a_method_file_that_cannot_be_imported_is_refused(cli, own_folder, name):
    own = f"--config-dir={own_folder / 'configs'}"
    cli(own, f"method={name}", *FOUR_SCENES[:1]).refused(f"'{name}'", IMPORTS[name][1])


@pytest.mark.parametrize("name", BUILT)
def test_a_method_whose_options_cannot_be_is_refused(cli, own_folder, name):
    own = f"--config-dir={own_folder / 'configs'}"
    cli(own, f"method={name}", *FOUR_SCENES[:1]).refused(f"'{name}'", BUILT[name][1])


def test_a_file_with_the_name_of_a_method_of_the_package_is_told(cli, own_folder):
    registry._tell_unused.cache_clear()
    (own_folder / "evit.py").write_text(HEAD + "        pass\n")
    (told,) = cli("method=evit", *FOUR_SCENES[:1]).err.splitlines()
    assert "'evit'" in told and "evit.py is not used: rename it" in told
    assert not cli("method=tome", *FOUR_SCENES[:1]).err


def test_a_method_file_that_is_not_there_is_refused(cli, own_folder):
    cli("method.name=broken_nothing").refused("'broken_nothing'", "unknown", "Python file")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("broken_raises", "KeyError"),
        ("broken_lengths", "WrongDecision"),
        ("broken_shape", "WrongDecision"),
        ("broken_type", "WrongDecision"),
    ],
)
def test_a_method_that_fails_is_recorded_and_the_other_rows_go_on(cli, own_folder, name, error):
    rows = f"rows=[{{method: dense}}, {{method: {name}}}, {{method: asap, with: {{tau: 2.0}}}}]"
    done = cli(f"--config-dir={own_folder / 'configs'}", "data.images=4", rows)
    assert done.code == 1
    assert set(done.records()) == {"Dense", "ASAP (pool.)"}
    failed, listed = done.err.splitlines()
    assert failed.startswith(f"{name} failed: ") and error in failed
    assert listed.startswith(f"1 failed: {name}: failed: ") and error in listed
    (report,) = done.results.glob("runs/*/error.json")
    told = json.loads(report.read_text("utf-8"))
    assert "Traceback" in told["traceback"] and str(report) in failed
    assert {"accuracy.json", "answers.parquet", "traces.parquet"}.isdisjoint(
        path.name for path in report.parent.iterdir()
    )
    assert name in done.out, "the table shows the row that failed"


def test_a_failing_row_does_not_cost_the_others_their_timing(cli, own_folder):
    rows = "rows=[{method: dense}, {method: broken_raises}]"
    quick = ("measure.rounds=3", "measure.seconds=0.001", "measure.short=true")
    done = cli(
        f"--config-dir={own_folder / 'configs'}", "data.images=4", "measure.throughput=true",
        *quick, rows,
    )  # fmt: skip
    assert done.code == 1
    assert len(list(done.results.glob("runs/*/throughput.json"))) == 1


def test_a_method_that_gives_nan_is_wrong_about_these_images(cli, own_folder):
    rows = "rows=[{method: dense}, {method: broken_once}, {method: broken_nan}]"
    done = cli(f"--config-dir={own_folder / 'configs'}", "data.images=4", rows)
    assert done.code == 0, done.err
    records = done.records()
    counts = ("n", "n_failed", "n_nonfinite")
    assert {label: tuple(r[name] for name in counts) for label, r in records.items()} == {
        "Dense": (4, 0, 0),
        "broken_once": (4, 0, 1),
        "broken_nan": (4, 0, 4),
    }
    assert (records["broken_nan"]["top1"], records["broken_nan"]["top5"]) == (0.0, 0.0)
    assert records["broken_once"]["correct1"] <= 3


# ---- several jobs, dashboards, real commands


def test_a_refused_job_leaves_the_others_of_a_multirun_done(cli):
    done = cli("-m", "data.images=4", "method.tau=2.0,0,2.5")
    assert done.code == 1
    assert len(done.records()) == 1 and len(list(done.results.glob("runs/*/accuracy.json"))) == 2
    first, last = done.err.splitlines()
    assert first.startswith("error: ") and "tau=0" in first
    assert last.startswith("1 failed: ") and "tau=0" in last


def test_a_failing_row_leaves_the_other_jobs_of_a_multirun_done(cli, own_folder):
    own = f"--config-dir={own_folder / 'configs'}"
    done = cli(own, "-m", "data.images=4", "method=dense,broken_raises,random_drop")
    assert done.code == 1
    assert set(done.records()) == {"Dense", "Random drop"}
    assert done.err.splitlines()[-1].startswith("1 failed: broken_raises: failed: KeyError")


def test_a_multirun_of_refused_jobs_only_is_refused(cli):
    done = cli("-m", "data.images=4", "method.tau=0,-1")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("2 failed: ")


def test_a_dashboard_without_a_key_does_not_cost_the_result(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    done = cli(*FOUR_SCENES, "log.wandb=online")
    assert done.code == 0 and done.record()["n"] == 4
    (warning,) = done.err.splitlines()
    assert warning.startswith("W&B: ") and "WANDB_API_KEY" in warning and "is kept" in warning


@pytest.mark.process
def test_a_real_command_ends_in_exit_code_2_and_one_line(tmp_path):
    done = forked.run("backbone=deit_tiny", f"results={tmp_path / 'r'}", HF_HOME=str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "deit_tiny" in line and "HF_HUB_OFFLINE" in line


@pytest.mark.process
def test_options_of_a_wrong_kind_are_refused(tmp_path):
    """As a command, because type checks that only tests have would come first in this process."""
    options = ["method.tau=high,true,3.0", "method.clusters=4.5,4", "method.max_block=2.5"]
    done = command("-m", *options, f"results={tmp_path / 'r'}")
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(" is not possible")[0] for line in lines[:6]] == [
        "error: method 'asap': tau='high'",
        "error: method 'asap': tau='high'",
        "error: method 'asap': tau=True",
        "error: method 'asap': tau=True",
        "error: method 'asap': clusters=4.5",
        "error: method 'asap': max_block=2.5",
    ]
    assert len(lines) == 7 and lines[6].startswith("6 failed: ")
    assert lines[6].count("tau='high'") == 1  # an equal reason is not said twice
    assert not list((tmp_path / "r").glob("runs/*/accuracy.json"))


@pytest.mark.process
def test_a_real_disk_that_is_full_is_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, before[1]))
    try:
        done = forked.run(f"results={tmp_path}", "data.images=4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line and "another results folder" in line


def test_an_error_in_one_line_names_its_kind_where_asked() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError("a\n  b"), kind=True) == "ValueError: a b"
    assert one_line(KeyError(), kind=True) == one_line(KeyError()) == "KeyError"
    assert one_line("a\n b") == "a b"
