"""What the tiny LLaVA is made of: its configuration, its tokenizer, its files."""

import json
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from asap.data.digits.questions import WORDS
from asap.data.digits.render import SIZE

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE)
VOCABULARY = (*SPECIAL, *dict.fromkeys(WORDS))
ID = {word: i for i, word in enumerate(VOCABULARY)}
PATCH = 14  # pixels
# As llava-1.5-hf asks: one placeholder before the first question; answers end with EOS.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% if message['role'] == 'user' %} {% else %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def configuration() -> LlavaConfig:
    """LLaVA-1.5 in small: 12 blocks of width 96, a projector, 4 decoder layers of width 128."""
    vision = CLIPVisionConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=12, num_attention_heads=3,
        image_size=SIZE, patch_size=PATCH, hidden_act="quick_gelu", projection_dim=96,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=128, intermediate_size=344, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512,
        rms_norm_eps=1e-5, pad_token_id=ID[PAD], bos_token_id=ID[BOS], eos_token_id=ID[EOS],
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ID[IMAGE],
        projector_hidden_act="gelu", vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=(SIZE // PATCH) ** 2,
    )  # fmt: skip


def untrained(seed: int) -> LlavaForConditionalGeneration:
    """The model with random weights, float32."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(configuration())


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, capitals as small letters; what is no word of the vocabulary is unknown."""
    words = Tokenizer(models.WordLevel(ID, unk_token=UNKNOWN))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    words.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ID[BOS])]
    )
    made: Any = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN,
        padding_side="left", model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = CHAT_TEMPLATE
    return made


def image_processor() -> CLIPImageProcessor:
    """Pictures as CLIP's processor prepares them, with the mean and deviation of this tower."""
    return CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True,
    )  # fmt: skip


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Give a float32 module the weights that its float16 file will have, in place."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half().float())


def write(model: LlavaForConditionalGeneration, folder: Path) -> str:
    """A folder as the hub has it: configuration, tokenizer, picture processor, weights (float16).

    Returns the sha256 of `model.safetensors`.
    """
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.generation_config = GenerationConfig(
        bos_token_id=ID[BOS], eos_token_id=ID[EOS], pad_token_id=ID[PAD], do_sample=False
    )
    deepcopy(model).half().save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file(
        {hub_name(name): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"}
    )
    file.chmod(0o644)  # save_pretrained leaves it to its owner alone
    tokenizer().save_pretrained(folder)
    image_processor().save_pretrained(folder)
    template = folder / "chat_template.jinja"
    if template.exists():  # beside the tokenizer's other settings, where every version looks
        template.unlink()
        settings_file = folder / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text("utf-8")) | {"chat_template": CHAT_TEMPLATE}
        settings_file.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return sha256(file.read_bytes()).hexdigest()


def hub_name(name: str) -> str:
    """A tensor's name in llava-hf's files: the tower's have one part more than newer releases'."""
    inner = "vision_tower.vision_model."
    return name if name.startswith(inner) else name.replace("vision_tower.", inner, 1)
