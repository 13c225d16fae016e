"""A LLaVA-1.5 checkpoint as loaded: against Hugging Face's own model, and what is refused."""

import ast
import contextlib
import ctypes
import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_llava import TEMPLATE, edit, hugging_face, made_llava
from safetensors.torch import load_file, save_file
from torch import Tensor

import asap
from asap.backbones.accepted import adapter_of
from asap.backbones.llava.bundled import BUNDLED, SHA256
from asap.backbones.llava.checkpoint import load_llava, modules_of
from asap.backbones.llava.clip_names import trunk_sources
from asap.backbones.llava.parts import clip_trunk
from asap.backbones.llava.settings import llava_config
from asap.core.macs import backbone_macs
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.engine.visual_rows import VisualTower
from asap.errors import RequestError
from asap.methods import Dense

LIBRARIES = {"transformers", "tokenizers"}
IMAGE = 112  # 64 patches: long enough for the executor to attend as Hugging Face does


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return made_llava(tmp_path_factory.mktemp("llava"), image=IMAGE)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copied")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randn(3, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(1))


def change(folder: Path, rename: Callable[[str], str | None], **more: Tensor) -> None:
    """Rename the tensors of a checkpoint, without those renamed to None, and add some."""
    file = folder / "model.safetensors"
    renamed = {rename(name): value for name, value in load_file(file).items()}
    save_file({name: value for name, value in renamed.items() if name} | more, file)


def test_the_tower_is_hugging_faces_bit_for_bit(folder, pictures):
    llava, theirs = load_llava(str(folder)), hugging_face(folder).model.vision_tower
    trunk: Any = llava.tower
    with torch.no_grad():
        states = theirs(pictures, output_hidden_states=True).hidden_states
        x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pictures)))
        assert torch.equal(x, states[0])
        for block, state in zip(trunk.blocks, states[1:-1], strict=True):
            x = block(x)
            assert torch.equal(x, state)
    model = ReducedViT(trunk, Dense())
    assert model.adapter.anatomy.left_out == 1
    rows, trace, _ = VisualTower(model)(pictures)
    assert torch.equal(rows.rows, states[-2][:, 1:].flatten(0, 1))
    assert torch.equal(model.features(pictures)[0], states[-2].flatten(0, 1))
    assert trace.tokens[:, -1].tolist() == [65, 65, 65]


@pytest.mark.parametrize("text", ["llama", "mistral"])
def test_answers_are_hugging_faces(text, pictures, tmp_path):
    """Unreduced: the same logits at the first step up to rounding, and the same ids."""
    made_llava(tmp_path, text=text, image=IMAGE, layers=2)
    llava, theirs = load_llava(str(tmp_path)), hugging_face(tmp_path)
    decoder = Decoder(llava.language)
    rows, _, _ = VisualTower(ReducedViT(llava.tower, Dense()))(pictures)
    for i, question in enumerate(["Is there a three?", "How many digits?", "Describe it."]):
        prompt = llava.frame.split(question)
        visual = llava.projector(rows.of(i))
        found = decoder.generate(visual, prompt.prefix, prompt.suffix, 6, llava.frame.eos)
        ids = [*prompt.prefix, *[theirs.config.image_token_index] * len(visual), *prompt.suffix]
        given = {"input_ids": torch.tensor([ids]), "pixel_values": pictures[i : i + 1]}
        with torch.no_grad():
            first = theirs(**given).logits[0, -1]
            said = theirs.generate(**given, max_new_tokens=6, do_sample=False)[0, len(ids) :]
        torch.testing.assert_close(found.first, first, rtol=1e-5, atol=1e-5 * first.abs().max())
        ends = [*found.ids, *llava.frame.eos][: len(said)]
        assert said.tolist() == ends


HUB_CONFIG = {  # as llava-hf/llava-1.5-7b-hf has it: what is usual is left out
    "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100,
    "image_token_index": 32000, "model_type": "llava", "pad_token_id": 32001,
    "projector_hidden_act": "gelu", "tie_word_embeddings": False, "torch_dtype": "float16",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
        "torch_dtype": "float16", "vocab_size": 32064,
    },
    "vision_config": {
        "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
        "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
        "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
    },
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
}  # fmt: skip


def test_the_config_of_llava_on_the_hub_gives_its_sizes(tmp_path):
    """Counts as the tensors of Vicuna-7B, CLIP ViT-L/14-336 and LLaVA-1.5's projector have them."""
    (tmp_path / "config.json").write_text(json.dumps(HUB_CONFIG))
    config = llava_config(tmp_path)
    with torch.device("meta"):
        tower, *others = modules_of(config)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (tower, *others)]
    assert sizes == [290_909_184, 20_979_712, 6_607_605_760, 32_064 * 4096]
    assert sizes[2] + sizes[3] == 6_738_415_616 + 2 * 64 * 4096  # 64 ids more than Vicuna's 32,000
    assert tower.patch_embed.grid_size == (24, 24) and len(tower.blocks) == 23
    cost = adapter_of(tower).cost  # acceptance test 12; rows that are left, and the block
    for rows, block, giga in ((576, 23, 183.017), (230, 12, 125.93), (128, 12, 110.12),
                              (64, 12, 100.45), (64, 11, 93.33), (64, 13, 107.57)):  # fmt: skip
        tokens = np.array([[577] * block + [1 + rows] * (24 - block)])
        macs = int(backbone_macs(cost, tokens, "after_attention")[0])
        assert rows < 576 or macs == 183_016_929_280
        assert round(macs / 1e9, 3 if rows == 576 else 2) == giga
        assert rows < 576 or round(5 * macs / 1e9, 3) == 915.085  # LLaVA-NeXT's five images
    assert config.text_config.rope_parameters == {"rope_theta": 10000.0, "rope_type": "default"}
    assert (config.text_config.eos_token_id, config.text_config.num_key_value_heads) == (2, 32)


NAMES = {
    "the hub's": lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
    "newer": lambda name: (
        "lm_head.weight"
        if "lm_head" in name
        else "model." + name.replace("language_model.model.", "language_model.")
    ),
}


@pytest.mark.parametrize("style", NAMES)
def test_names_of_all_releases_give_the_same_weights(style, folder, copied):
    change(copied, NAMES[style])
    assert load_llava(str(copied)).digests == load_llava(str(folder)).digests


def test_buffers_of_old_files_are_no_weights(folder, copied):
    more = {
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(65)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
    }
    change(copied, lambda name: name, **more)
    assert load_llava(str(copied)).digests == load_llava(str(folder)).digests


def shard(folder: Path) -> list[str]:
    """Save the tensors of a checkpoint in two files, with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: names[k % 2] for k, name in enumerate(tensors)}
    for file in names:
        save_file({k: v for k, v in tensors.items() if where[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return names


def test_several_files_are_one_checkpoint(folder, copied):
    names = shard(copied)
    found = load_llava(str(copied))
    assert found.digests == load_llava(str(folder)).digests
    assert load_llava(str(copied), sha256=found.file.sha256).file.path == copied
    (copied / names[1]).unlink()
    with pytest.raises(RequestError, match=rf"lacks {names[1]}.*download the whole"):
        load_llava(str(copied))


def test_newer_processors_keep_the_picture_settings_inside(folder, copied):
    old = copied / "preprocessor_config.json"
    inside = json.loads(old.read_text())
    old.unlink()
    inside["size"] |= {"longest_edge": None, "height": None}
    content = {"image_processor": inside, "processor_class": "LlavaProcessor"}
    (copied / "processor_config.json").write_text(json.dumps(content))
    expected = load_llava(str(folder)).preprocessing.identity
    assert load_llava(str(copied)).preprocessing.identity == expected


def test_weights_stay_in_the_files_precision_until_they_are_moved(tmp_path):
    made_llava(tmp_path, dtype=torch.float16, layers=2)
    llava = load_llava(str(tmp_path))
    parts = (llava.tower, llava.projector, llava.language)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float16}
    assert not any(p.requires_grad or part.training for part in parts for p in part.parameters())
    assert llava.to("cpu", torch.float32) is llava
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}


def test_digests_tell_which_part_differs(folder, copied):
    whole = load_llava(str(folder)).digests
    assert whole.keys() == {"tower", "projector", "language", "tokenizer", "template"}
    frame = copied / "chat_template.jinja"
    frame.write_text(frame.read_text() + "{# changed #}")
    file = copied / "model.safetensors"
    tensors = load_file(file)
    tensors["multi_modal_projector.linear_1.bias"] += 1
    save_file(tensors, file)
    found = load_llava(str(copied)).digests
    assert {part for part in whole if whole[part] != found[part]} == {"template", "projector"}


SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rotation": ("language", "config.json", {"text": {"rope_theta": 500.0}}),
    "epsilon": ("language", "config.json", {"text": {"rms_norm_eps": 1e-3}}),
    "heads": ("language", "config.json", {"text": {"num_attention_heads": 2, "head_dim": 24}}),
    "epsilon of the tower": ("tower", "config.json", {"vision": {"layer_norm_eps": 1e-3}}),
    "heads of the tower": ("tower", "config.json", {"vision": {"num_attention_heads": 4}}),
    "end of an answer": ("template", "generation_config.json", {"eos_token_id": 7}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_digests_have_the_settings_that_no_tensor_has(name, folder, copied):
    """The same weights would answer differently, so that records must not be taken for each other.

    Acceptance test 18 rests on it: a run goes on with the shards of its key.
    """
    part, file, changes = SETTINGS[name]
    whole = load_llava(str(folder)).digests
    stated = json.loads((copied / file).read_text("utf-8"))
    for inner in ("text", "vision"):
        stated.get(f"{inner}_config", {}).update(changes.get(inner, {}))
    stated |= {key: value for key, value in changes.items() if key not in ("text", "vision")}
    if (rope := stated.get("text_config", {}).get("rope_parameters")) and name == "rotation":
        rope |= changes["text"]
    if name == "heads":
        stated["text_config"]["num_key_value_heads"] = 1
    (copied / file).write_text(json.dumps(stated), "utf-8")
    found = load_llava(str(copied)).digests
    assert {one for one in whole if whole[one] != found[one]} == {part}


def test_the_bundled_one_loads():
    llava = load_llava("bundled")
    tower: Any = llava.tower
    assert (llava.name, llava.file.sha256) == (BUNDLED.name, SHA256)
    assert len(tower.blocks) == 11 and llava.preprocessing.patch_grid == (8, 8)
    prompt = llava.frame.split("is there a 3 ?")
    assert prompt.prefix and prompt.suffix and llava.frame.eos


def test_tied_weights_are_held_once(tmp_path):
    made_llava(tmp_path, layers=2, language={"tie_word_embeddings": True}, tie_word_embeddings=True)
    language = load_llava(str(tmp_path)).language
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert language.lm_head.weight is language.model.embed_tokens.weight
    language.to("cpu", torch.float64)
    assert language.lm_head.weight is language.model.embed_tokens.weight
    assert language.lm_head.weight.dtype == torch.float64


def test_an_older_file_may_name_several_templates(folder, copied):
    other = {"name": "rag", "template": "<image>"}
    edit(
        copied / "tokenizer_config.json",
        chat_template=[other, {"name": "default", "template": TEMPLATE}],
    )
    (copied / "chat_template.jinja").unlink()
    assert load_llava(str(copied)).digests == load_llava(str(folder)).digests


def test_a_single_file_comes_before_an_index(folder, copied):
    """As transformers reads a folder that has both."""
    (copied / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert load_llava(str(copied)).digests == load_llava(str(folder)).digests


# ---- what is refused: one line that names the thing


def within(place: str, **changes: Any) -> Callable[[Path], Any]:
    """Change entries of one of the configs inside config.json."""

    def do(folder: Path) -> None:
        path = folder / "config.json"
        edit(path, **{place: json.loads(path.read_text())[place] | changes})

    return do


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def stated(name: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder / name, **changes)


def tensors(rename: Callable[[str], str | None], **more: Tensor) -> Callable[[Path], Any]:
    return lambda folder: change(folder, rename, **more)


def template(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def called(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def dropped(part: str) -> Callable[[str], str | None]:
    return lambda name: None if part in name else name


def same(name: str) -> str:
    return name


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (without("config.json"), "has no config.json: give the folder of a LLaVA"),
    "damaged config": (
        lambda folder: (folder / "config.json").write_text("{"),
        "config.json cannot be read",
    ),
    "a text for a config": (stated("config.json", vision_config="clip"), "are no objects"),
    "no patch": (
        within("vision_config", patch_size=0),
        "vision_config.patch_size=0 is not a whole number of 1 or more",
    ),
    "sides of a picture": (
        within("vision_config", image_size=[112, 112]),
        r"vision_config.image_size=\[112, 112\] is not a whole number",
    ),
    "no heads": (
        within("text_config", num_key_value_heads=0),
        "text_config.num_key_value_heads=0 is not",
    ),
    "an id below 0": (stated("config.json", image_token_index=-1), "image_token_index=-1 is not"),
    "a slow tokenizer": (
        lambda folder: (folder / "tokenizer.json").rename(folder / "tokenizer.model"),
        "has tokenizer.model and no tokenizer.json: make it with transformers",
    ),
    "no tokenizer": (without("tokenizer.json"), "has no tokenizer.json"),
    "no picture settings": (
        without("preprocessor_config.json"),
        "has no preprocessor_config.json",
    ),
    "OneVision": (stated("config.json", model_type="llava_onevision"), "model_type='llava_onev"),
    "LLaVA-Video": (stated("config.json", model_type="llava_next_video"), "'llava_next_video'"),
    "NeXT without its newline row": (
        stated("config.json", model_type="llava_next", image_grid_pinpoints=[[112, 112]]),
        "image_newline of the newline is missing|image_newline of the newline",
    ),
    "SigLIP": (
        within("vision_config", model_type="siglip_vision_model"),
        "vision_config.model_type='siglip_vision_model'",
    ),
    "Qwen": (within("text_config", model_type="qwen2"), "text_config.model_type='qwen2'"),
    "quantised config": (
        stated("config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "are quantised",
    ),
    "quantised weights": (
        tensors(
            dropped("linear_1.weight"),
            **{"multi_modal_projector.linear_1.weight": torch.zeros(48, 32, dtype=torch.int8)},
        ),
        "linear_1.weight is I8",
    ),
    "last features": (stated("config.json", vision_feature_layer=-1), "vision_feature_layer=-1"),
    "several features": (
        stated("config.json", vision_feature_layer=[-2, -5]),
        r"vision_feature_layer=\[-2, -5\]",
    ),
    "class row too": (
        stated("config.json", vision_feature_select_strategy="full"),
        "vision_feature_select_strategy='full'",
    ),
    "plain GELU": (within("vision_config", hidden_act="gelu"), "vision_config.hidden_act='gelu'"),
    "other projector": (
        stated("config.json", projector_hidden_act="relu"),
        "projector_hidden_act='relu'",
    ),
    "tower of 224": (
        within("vision_config", image_size=224),
        "is for pictures of 112 pixels and the vision tower for 224",
    ),
    "other positions": (
        lambda folder: (
            within("vision_config", image_size=98)(folder),
            edit(folder / "preprocessor_config.json", crop_size=98, size=98),
        ),
        r"embeddings.position_embedding.weight is \(65, 32\), not \(50, 32\)",
    ),
    "small vocabulary": (
        stated("config.json", image_token_index=4000),
        "image_token_index=4000 is not an id below text_config.vocab_size=400",
    ),
    "ids beyond the vocabulary": (
        within("text_config", vocab_size=300),
        r"ids up to 399, and the language model has only 300",
    ),
    "no template": (without("chat_template.jinja"), "has no chat template"),
    "template without a picture": (template("{{ 'ASSISTANT:' }}"), "'<image>' 0 times"),
    "template of two pictures": (template("<image> and <image> {{ 1 }}"), "'<image>' 2 times"),
    "template that fails": (template("{{ raise_exception('no turns') }}"), "no turns"),
    "template without the question": (template("<image> what?"), "leaves the question out"),
    "template that ends with the picture": (
        template("{{ messages[0]['content'][1]['text'] }}<image>"),
        "ends with the picture",
    ),
    "a text for an end": (
        stated("generation_config.json", eos_token_id="</s>"),
        "eos_token_id='</s>', which is no token id",
    ),
    "no normalisation": (
        stated("preprocessor_config.json", do_normalize=False),
        r"do_normalize=False is not supported \(only True",
    ),
    "no spread": (stated("preprocessor_config.json", image_std=[0, 1, 1]), "divides by 0"),
    "parts without an index": (
        called("model-00001-of-00002.safetensors"),
        "has model-00001-of-00002.safetensors and no model.safetensors.index.json: download",
    ),
    "an index of numbers": (
        lambda folder: (
            called("x")(folder),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
        ),
        "lacks 3, which",
    ),
    "other pixels": (
        stated("preprocessor_config.json", resample=2),
        r"resample=2 is not supported \(only 3",
    ),
    "odd mean": (stated("preprocessor_config.json", image_mean=[1, 2]), "is not one of CLIP's"),
    "no weights": (without("model.safetensors"), "has neither model.safetensors nor"),
    "a pickle": (
        called("pytorch_model.bin"),
        "pytorch_model.bin is a pickle.*save the weights",
    ),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99),
        "model.safetensors cannot be read",
    ),
    "missing tensor": (
        tensors(dropped("layers.1.mlp.up_proj")),
        "1 missing, first layers.1.mlp.up_proj.weight of the language",
    ),
    "missing output layer": (tensors(dropped("lm_head")), "1 missing, first weight of the head"),
    "missing block": (
        tensors(dropped("vision_tower.encoder.layers.1.")),
        "16 missing, first encoder.layers.1.layer_norm1.weight of the tower",
    ),
    "unknown tensor": (
        tensors(same, **{"vision_tower.encoder.layers.0.extra": torch.ones(2)}),
        "1 unexpected, first vision_tower.encoder.layers.0.extra",
    ),
    "unknown part": (tensors(same, image_newline=torch.ones(48)), "unexpected, first image_newl"),
    "other shape": (
        tensors(
            dropped("linear_1.bias"), **{"multi_modal_projector.linear_1.bias": torch.ones(47)}
        ),
        r"linear_1.bias is \(47,\), not \(48,\) \(of the projector\)",
    ),
    "not a number": (
        tensors(
            dropped("linear_1.bias"),
            **{"multi_modal_projector.linear_1.bias": torch.full((48,), float("nan"))},
        ),
        "NaN or infinity in multi_modal_projector.linear_1.bias",
    ),
    "sliding windows": (
        within("text_config", model_type="mistral", sliding_window=64),
        "sliding_window=64",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_checkpoint_is_refused_in_one_line(bad, copied):
    spoil, message = BAD[bad]
    spoil(copied)
    with pytest.raises(RequestError, match=message) as refused:
        load_llava(str(copied))
    assert len(str(refused.value).splitlines()) == 1


def test_a_bad_request_is_refused(folder):
    with pytest.raises(RequestError, match=r"have sha256 .*, not 00: they are damaged or others"):
        load_llava(str(folder), sha256="00")
    with pytest.raises(RequestError, match="picture='stretch' is not possible: use one of pad, cr"):
        load_llava(str(folder), picture="stretch")
    with pytest.raises(RequestError, match="model='/nowhere' is not a folder"):
        load_llava("/nowhere")


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(RequestError, match="make setup-vlm") as refused:
        load_llava("bundled")
    assert len(str(refused.value).splitlines()) == 1


def test_only_llava_imports_the_library_and_never_when_it_is_imported_itself():
    """So that runs on images and videos neither need it nor wait for it."""
    package = Path(asap.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        everywhere = imported(ast.walk(tree))
        at_once = imported(tree.body)
        allowed = path.is_relative_to(package / "backbones" / "llava")
        assert not at_once & LIBRARIES, path
        assert allowed or not everywhere & LIBRARIES, path


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The top names of the modules that these statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_an_old_library_is_named(monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    with pytest.raises(RequestError, match=r"transformers 4\.57\.1 is installed.*make setup-vlm"):
        load_llava("bundled")


# ---- what takes long


@pytest.fixture
def given_back() -> Iterator[None]:
    """Memory that a large model took goes back to the system: later tests fork this process."""
    yield
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


@pytest.mark.slow
def test_the_tower_of_llava_is_hugging_faces_bit_for_bit(given_back):
    """Blocks of CLIP ViT-L/14 at 336 pixels, random weights, norms and biases too."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=7, num_attention_heads=16,
        image_size=336, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = CLIPVisionModel(config).eval().requires_grad_(False)
    for name, value in theirs.named_parameters():
        if "norm" in name or name.endswith("bias"):
            value.add_(0.1 * torch.randn(value.shape))
    trunk = clip_trunk(config).eval().requires_grad_(False)
    state, held = {}, theirs.state_dict()
    for key, names in trunk_sources(6).items():
        whole = torch.cat([held[name.removeprefix("vision_model.")] for name in names])
        state[key] = whole.view(trunk.state_dict()[key].shape)
    trunk.load_state_dict(state)
    picture = torch.randn(1, 3, 336, 336)
    states = theirs(picture, output_hidden_states=True).hidden_states
    assert torch.equal(ReducedViT(trunk, Dense()).features(picture)[0], states[-2][0])


MEASURED = """
import re, sys
import torch
from pathlib import Path
import asap
from asap.backbones.llava.checkpoint import load_llava, modules_of

def held(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

tiny, big = sys.argv[1:]
load_llava(tiny)  # imports the libraries
before = held("VmRSS")
llava = load_llava(big)
loaded = held("VmHWM")
llava.to("cpu", torch.float16)
print(loaded - before, held("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own measure of memory")
def test_memory_holds_the_weights_once(folder, tmp_path, given_back):
    """A checkpoint of half a GB in float32, in one file: loaded, then moved to half precision."""
    made_llava(
        tmp_path, width=1024, heads=8, kv_heads=8, layers=9, tower_width=256, tower_blocks=6,
        language={"intermediate_size": 3072},
    )  # fmt: skip
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 0.48e9
    command = [sys.executable, "-c", MEASURED, folder, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    (tmp_path / "model.safetensors").unlink()  # before the disk is busy with it
    assert done.returncode == 0, done.stderr
    loaded, moved = (int(peak) / size for peak in done.stdout.split())
    print(f"{size / 1e9:.2f} GB: peak {loaded:.3f} of it, while it is moved {moved:.3f}")
    assert loaded < 1.1 and moved < 1.1
