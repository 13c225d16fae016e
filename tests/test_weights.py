"""Weights in the formats that people have, from the places where they have them; strictly."""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from draws import randomise
from huggingface_hub import constants
from safetensors.torch import save_file
from samples import data_spec
from torch import Tensor, nn

import asap
from asap.backbones.heads import CLASSIFIER, without_classes
from asap.backbones.weights.load import BUNDLED, load
from asap.errors import RequestError
from asap.measure.session import Session
from asap.methods import Dense
from asap.spec.run_spec import BackboneSpec, MeasureSpec, MethodSpec, RunSpec

NAME = "deit_tiny_patch16_224.fb_in1k"
REPOSITORY = "timm/deit_tiny_patch16_224.fb_in1k"
ARGS = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 10}
CLIP = "vit_large_patch14_clip_quickgelu_224.openai"
CLIP_ARGS = {"img_size": 28, "embed_dim": 48, "depth": 2, "num_heads": 2}


def state_of(name: str = NAME, **args) -> dict[str, Tensor]:
    """A small model's tensors, every one random."""
    model = timm.create_model(name, **(args or ARGS))
    randomise(model, seed=3)
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    found = model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], v) for k, v in state.items())


# ---- formats

WRAPPED = {
    "plain.pth": lambda s: s,
    "deit.pth": lambda s: {"model": s},
    "training.pth.tar": lambda s: {"epoch": 3, "state_dict": s, "args": argparse.Namespace(lr=1)},
    "parallel.pt": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "pytorch_model.bin": lambda s: s,
}


@pytest.mark.parametrize("file", ["timm.safetensors", *WRAPPED])
def test_a_file_in_a_known_format_loads(file, tmp_path):
    state = state_of()
    if file in WRAPPED:
        torch.save(WRAPPED[file](state), tmp_path / file)
    else:
        save_file(state, tmp_path / file)
    loaded = load(NAME, str(tmp_path / file), model_args=ARGS)
    assert_same(loaded.model, state)
    assert loaded.file is not None and loaded.file.origin == "file"
    assert loaded.file.sha256 == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert_same(asap.load_backbone(NAME, str(tmp_path), model_args=ARGS), state)  # its folder


def test_a_folder_with_several_files_or_none_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"no weights file.*backbone\.weights"):
        load(NAME, str(tmp_path), model_args=ARGS)
    for name in ("a.pth", "b.pth"):
        torch.save(state_of(), tmp_path / name)
    with pytest.raises(RequestError, match=r"2 weights files \(a\.pth, b\.pth\)"):
        load(NAME, str(tmp_path), model_args=ARGS)


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's CLIP tower under the names of OpenAI's release, beside parts of the text tower."""
    renamed = {"transformer.resblocks.0.ln_1.weight": torch.ones(4), "logit_scale": torch.ones(())}
    blocks = {
        "norm1": "ln_1", "norm2": "ln_2", "attn.qkv.weight": "attn.in_proj_weight",
        "attn.qkv.bias": "attn.in_proj_bias", "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    parts = {"patch_embed.proj": "conv1", "norm_pre": "ln_pre", "norm": "ln_post"}
    for key, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
            old = next(k for k in blocks if match[2].startswith(k))
            name = f"transformer.resblocks.{match[1]}.{match[2].replace(old, blocks[old])}"
        elif key == "cls_token":
            name, value = "class_embedding", value[0, 0]
        elif key == "pos_embed":
            name, value = "positional_embedding", value[0]
        elif key == "head.weight":
            name, value = "proj", value.T
        elif key == "head.bias":
            continue
        else:
            part, _, kind = key.rpartition(".")
            name = f"{parts[part]}.{kind}"
        renamed[f"visual.{name}"] = value
    return renamed


def test_clip_loads_under_its_authors_names(tmp_path):
    state = state_of(CLIP, **CLIP_ARGS)
    state["head.bias"].zero_()  # a projection has none
    torch.save(openai_names(state), tmp_path / "clip.pt")
    assert_same(load(CLIP, str(tmp_path / "clip.pt"), model_args=CLIP_ARGS).model, state)
    larger = {**CLIP_ARGS, "img_size": 42}
    with pytest.raises(RequestError, match=r"pos_embed would have to be resampled.*\(1, 10, 48\)"):
        load(CLIP, str(tmp_path / "clip.pt"), model_args=larger)


def test_deit_iii_loads_under_its_authors_names(tmp_path):
    name = "deit3_small_patch16_224.fb_in1k"
    state = state_of(name, **ARGS)
    original = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", k): v for k, v in state.items()}
    assert original.keys() != state.keys()
    torch.save({"model": original}, tmp_path / "deit3.pth")
    assert_same(load(name, str(tmp_path / "deit3.pth"), model_args=ARGS).model, state)


# ---- what does not fit


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda s: s.pop("blocks.1.norm2.bias"), ["1 missing", "blocks.1.norm2.bias"]),
        (lambda s: s.update(teacher=torch.ones(1)), ["1 unexpected", "teacher"]),
        (
            lambda s: s.update({"norm.bias": torch.ones(7)}),
            ["1 of other shape", "norm.bias", "(7,)", "(48,)"],
        ),
        (
            lambda s: s.update({"pos_embed": torch.ones(1, 10, 48), "x": torch.ones(1)}),
            ["pos_embed", "(1, 10, 48)", "(1, 5, 48)", "x"],
        ),
    ],
)
def test_the_key_that_does_not_fit_is_named(spoil, parts, tmp_path):
    state = state_of()
    spoil(state)
    torch.save({"model": state}, tmp_path / "deit.pth")
    with pytest.raises(RequestError) as refusal:
        load(NAME, str(tmp_path / "deit.pth"), model_args=ARGS)
    assert all(part in str(refusal.value) for part in parts), refusal.value


def test_another_number_of_classes_is_named(tmp_path):
    save_file(state_of(), tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match=r"have 10 classes.*built for 7.*model_args\.num_class"):
        load(NAME, str(tmp_path / "w.safetensors"), model_args={**ARGS, "num_classes": 7})


def test_a_model_without_head_leaves_the_files_head_out(tmp_path):
    state = state_of()
    save_file(state, tmp_path / "w.safetensors")
    model = load(NAME, str(tmp_path / "w.safetensors"), model_args={**ARGS, "num_classes": 0}).model
    assert_same(model, {k: v for k, v in state.items() if not k.startswith("head.")})


@pytest.mark.parametrize("name", ["no_such_model", "timm/x", f"{NAME}x", "x:/tmp"])
@pytest.mark.parametrize("weights", ["hub", "random"])
def test_a_name_that_is_no_models_is_refused_without_a_network(name, weights):
    with pytest.raises(RequestError, match="neither a timm model nor one of ours"):
        load(name, weights)


def test_a_misspelt_name_is_answered_with_what_may_be_meant():
    with pytest.raises(RequestError, match="did you mean deit_tiny_patch16_224 or "):
        load("deit_tny_patch16_224", "random")


# ---- the hub


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill(cache: Path, file: str = "model.safetensors") -> Path:
    """A cache as the library leaves it, with the small model in it; the snapshot's folder."""
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    save = save_file if file.endswith("safetensors") else torch.save
    save(state_of(), snapshot / file)
    return snapshot


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_cache_is_used_without_a_network(cache, file):
    snapshot = fill(cache, file)
    loaded = load(NAME, "hub", model_args=ARGS)
    assert_same(loaded.model, state_of())
    assert loaded.file is not None and loaded.file.origin == f"hub, {REPOSITORY}"
    for folder in (snapshot, snapshot.parents[1]):  # either may be given as a folder too
        assert_same(load(NAME, str(folder), model_args=ARGS).model, state_of())


def test_the_digest_of_a_hub_file_is_enforced(cache):
    content = (fill(cache) / "model.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    loaded = load(NAME, "hub", digest.upper(), ARGS)
    assert loaded.file is not None and loaded.file.sha256 == digest
    with pytest.raises(RequestError, match=f"{digest}, not 00"):
        load(NAME, "hub", "00", ARGS)


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for one file; `asked` counts its requests."""

    asked: list[str]
    status = 200
    content = b""

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path.rpartition('/')[2]}")
        known = self.path == f"/{REPOSITORY}/resolve/main/pytorch_model.bin"
        status = self.status if known or self.status != 200 else 404
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", '"an-etag"')
        self.send_header("Content-Length", str(len(self.content) if status == 200 else 0))
        self.end_headers()
        if self.command == "GET" and status == 200:
            self.wfile.write(self.content)

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    """A hub on this machine."""
    kind = type("OneHub", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    resolve = f"{here}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_are_fetched_once(cache, hub, tmp_path):
    torch.save(state_of(), tmp_path / "w.bin")
    hub.content = (tmp_path / "w.bin").read_bytes()
    assert_same(load(NAME, "hub", model_args=ARGS).model, state_of())
    asked = list(hub.asked)
    assert asked.count("GET pytorch_model.bin") == 1
    assert_same(load(NAME, "hub", model_args=ARGS).model, state_of())
    assert hub.asked == asked


def test_a_hub_that_fails_is_asked_once_and_named(cache, hub):
    hub.status = 503
    with pytest.raises(RequestError) as refusal:
        load(NAME, "hub")
    assert hub.asked == ["HEAD model.safetensors"]
    said = str(refusal.value)
    for part in (REPOSITORY, str(cache), constants.ENDPOINT, "503", "backbone.weights=/path/to/"):
        assert part in said
    assert "\n" not in said


@pytest.mark.process
def test_without_a_network_a_run_ends_in_one_line(tmp_path):
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-m", "asap.run", "backbone=deit_base", f"results={tmp_path}/r"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**environment, **unreachable}
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    said = ["deit_base_patch16_224.fb_in1k", "model.safetensors", str(tmp_path / "home" / "hub")]
    for part in (*said, "http://127.0.0.1:9", "ConnectError", "backbone.weights=/path/to/"):
        assert part in done.stderr


def test_a_model_that_is_on_no_hub_is_refused_with_its_address():
    with pytest.raises(RequestError, match=r"not on the hub: download https://.*backbone\.weights"):
        load("vit_huge_patch14_gap_224.in1k_ijepa")


# ---- every timm ViT


def vits() -> list[str]:
    return sorted(
        set(timm.list_models(module="vision_transformer") + timm.list_models(module="deit"))
    )


def test_every_vit_of_timm_works_or_is_refused_by_name():
    """One block, narrow, 2 x 2 patches, every parameter random; against timm's own forward."""
    refused: set[str] = set()
    for name in vits():
        patch = int(found[1]) if (found := re.search(r"patch(\d+)", name)) else 16
        args = {"embed_dim": 48, "num_heads": 2, "depth": 1, "img_size": 2 * patch}
        model = timm.create_model(name, num_classes=3, **args).eval()
        randomise(model, seed=1)
        images = torch.randn(2, 3, *model.patch_embed.img_size)
        try:
            reduced = asap.ReducedViT(model, Dense())
        except ValueError as refusal:
            assert "is not supported" in str(refusal), name
            refused.add(str(refusal).split(" is not supported")[0].replace("block 1 of ", ""))
            continue
        with torch.no_grad():
            expected = model(images)
        assert (reduced(images) - expected).abs().max() <= 1e-5 * expected.abs().max(), name
    assert refused == {
        "type ParallelScalingBlock", "type ParallelThingsBlock", "type DiffParallelScalingBlock",
        "type ResPostBlock", "attention of type DiffAttention", "global_pool='map'",
        "pool_include_prefix=True",
    }  # fmt: skip


def test_other_channels_than_a_picture_has_are_refused():
    with pytest.raises(ValueError, match="in_chans=1 is not supported"):
        model = asap.load_backbone(NAME, "random", model_args={**ARGS, "in_chans": 1})
        asap.ReducedViT(model, Dense())


# ---- backbones without classes

IMAGENET_CLASSES = (1000, 11821)  # ImageNet-1k and -12k, all that timm fine-tuned CLIP on


class Outputs(nn.Module):
    """What is asked of a backbone about its outputs."""

    def __init__(self, num_classes: int, pretrained_cfg: dict) -> None:
        super().__init__()
        self.num_classes, self.pretrained_cfg = num_classes, pretrained_cfg


def test_clip_towers_have_classes_only_where_they_were_fine_tuned():
    names = timm.list_models(module="vision_transformer", pretrained=True)
    for name in (n for n in names if "_clip_" in n):
        known = timm.get_pretrained_cfg(name)
        assert known is not None
        model = Outputs(known.num_classes, known.to_dict())
        assert (without_classes(model) is None) == (known.num_classes in IMAGENET_CLASSES), name
        assert without_classes(Outputs(10, known.to_dict())) is None  # a head of one's own
    assert CLASSIFIER in names


@pytest.mark.parametrize(
    ("name", "args", "why"),
    [
        (CLIP, CLIP_ARGS, "768 outputs are CLIP's"),
        ("vit_large_patch14_clip_quickgelu_336.openai", CLIP_ARGS, "768 outputs are CLIP's"),
        (NAME, {**ARGS, "num_classes": 0}, "num_classes=0"),
    ],
)
def test_accuracy_without_classes_is_refused_and_speed_is_not(name, args, why, tmp_path):
    def session(measure: MeasureSpec) -> Session:
        spec = RunSpec(
            "x", BackboneSpec(name, "random", model_args=args), data_spec("digits", images=2),
            (MethodSpec.of("dense", {}, "Dense"),), measure, results=tmp_path,
        )  # fmt: skip
        return Session(spec)

    with pytest.raises(RequestError) as refusal:
        _ = session(MeasureSpec()).data
    for part in (name, why, "data=digits", f"backbone.name={CLASSIFIER}", "measure=throughput"):
        assert part in str(refusal.value)
    assert len(session(MeasureSpec(accuracy=False, throughput=True)).data) == 2


def test_a_digest_is_refused_where_no_file_is_read():
    """But for that of the bundled file, which the backbone's own config states."""
    with pytest.raises(RequestError, match=r"^backbone\.sha256=00 .* leave one of them out"):
        load(NAME, "random", "00", ARGS)
    assert load("digits_vit", "random", BUNDLED["digits_vit"]).file is None
    with pytest.raises(RequestError, match=r"backbone\.weights=random reads none"):
        load("digits_vit", "random", "00")
    assert load("lvvit_s", "random", None).file is None
