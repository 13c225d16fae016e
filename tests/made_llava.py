"""A LLaVA-1.5 or LLaVA-NeXT checkpoint of random weights in a folder, as Hugging Face saves one."""

import json
from pathlib import Path
from typing import Any

import torch

import asap  # noqa: F401  # first: transformers imports torchvision

TEXT = """
A picture shows some digits on a textured ground. Is there a three in the picture? yes, there is a
three. How many digits are there? two digits. Which digit is leftmost, rightmost, largest? Is the
seven left of the one? no, it is not. Answer the question using a single word or phrase. USER:
ASSISTANT: Describe the picture. The image has a cat, a dog and a red bicycle near the old house,
under a grey sky with clouds. Answer with the option's letter from the given choices directly.
"""
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # LLaVA-NeXT's canvases in tiles, down and across
SPECIAL = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def made_llava(
    folder: Path,
    *,
    text: str = "llama",
    layers: int = 3,
    width: int = 48,
    heads: int = 4,
    kv_heads: int = 2,
    tower_blocks: int = 4,
    tower_width: int = 32,
    image: int = 56,
    patch: int = 14,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    vision: dict[str, Any] | None = None,
    language: dict[str, Any] | None = None,
    template: str | None = TEMPLATE,
    kind: str = "llava",
    **config: Any,
) -> Path:
    """Write a checkpoint into the folder and return it.

    text: llama | mistral; tower_blocks: of the encoder, whose last one is not run. vision,
    language, config: further settings of the three configs. kind: llava | llava_next, see
    `made_llava_next`. Every weight is random, norms and biases too, so that a tensor in the wrong
    place shows.
    """
    tokenizer = bpe_tokenizer(template)
    tokenizer.save_pretrained(folder)
    made = llava_config(
        len(tokenizer), text, layers, width, heads, kv_heads, tower_blocks, tower_width, image,
        patch, vision or {}, language or {}, config, kind,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = _class_of(made)(made).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            value.copy_(around + 0.2 * torch.randn(value.shape))
    model.to(dtype).save_pretrained(folder)
    write_pictures_config(folder, image)
    return folder


def made_llava_next(folder: Path, *, image: int = 56, **about: Any) -> Path:
    """The twin of `made_llava` whose pictures are cut into crops of `image` pixels, by a list of
    five canvases in the proportions of LLaVA-NeXT's.
    """
    canvases = [[image * down, image * across] for down, across in GRIDS]
    sizes = {"max_position_embeddings": 512, **about.pop("language", {})}
    made_llava(
        folder,
        image=image,
        kind="llava_next",
        language=sizes,
        image_grid_pinpoints=canvases,
        **about,
    )
    write_pictures_config(
        folder, image, do_pad=True, image_grid_pinpoints=canvases,
        image_processor_type="LlavaNextImageProcessor",
    )  # fmt: skip
    return folder


def _class_of(config: Any) -> Any:
    """Hugging Face's model of a config."""
    from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

    following = config.model_type == "llava_next"
    return LlavaNextForConditionalGeneration if following else LlavaForConditionalGeneration


def hugging_face(folder: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """Hugging Face's own model of a checkpoint; every key of it must fit. attention: sdpa | eager
    (which forgets the causal mask where none is given)."""
    from transformers import AutoConfig

    model, info = _class_of(AutoConfig.from_pretrained(folder)).from_pretrained(
        folder, dtype=dtype, output_loading_info=True, attn_implementation=attention
    )
    assert not any(info.values()), info
    return model.eval()


def bpe_tokenizer(template: str | None = TEMPLATE) -> Any:
    """A byte-level BPE trained on `TEXT`; <s> in front, as Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXT.splitlines(), trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    found: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", additional_special_tokens=["<image>"],
    )  # fmt: skip
    if template is not None:
        found.chat_template = template
    return found


def llava_config(
    vocabulary: int,
    text: str,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    tower_blocks: int,
    tower_width: int,
    image: int,
    patch: int,
    vision: dict[str, Any],
    language: dict[str, Any],
    config: dict[str, Any],
    kind: str = "llava",
) -> Any:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaNextConfig,
        MistralConfig,
    )

    tower = {
        "hidden_size": tower_width, "intermediate_size": 2 * tower_width + 8,
        "num_hidden_layers": tower_blocks, "num_attention_heads": 2, "image_size": image,
        "patch_size": patch, "hidden_act": "quick_gelu", "projection_dim": tower_width,
    }  # fmt: skip
    sizes = {
        "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 2 * width + 8,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 4,
    }  # fmt: skip
    more = {"sliding_window": None} if text == "mistral" else {}
    language_kind = {"llama": LlamaConfig, "mistral": MistralConfig}[text]
    stated = {
        "image_token_index": SPECIAL.index("<image>"), "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "image_seq_length": (image // patch) ** 2,
    }  # fmt: skip
    return {"llava": LlavaConfig, "llava_next": LlavaNextConfig}[kind](
        vision_config=CLIPVisionConfig(**tower | vision),
        text_config=language_kind(**sizes | more | language),
        **stated | config,
    )


def write_pictures_config(folder: Path, image: int, **changes: Any) -> None:
    """The file of the picture processor, as LLaVA-1.5 has it."""
    settings = {
        "crop_size": {"height": image, "width": image}, "size": {"shortest_edge": image},
        "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | changes), "utf-8")


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    content = json.loads(path.read_text("utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")
