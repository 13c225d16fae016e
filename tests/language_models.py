"""Small language models of random weights, and prompts for them."""

import torch
from jaxtyping import Float
from torch import Tensor

import asap  # noqa: F401  (before transformers: it makes torchvision importable)
from asap.backbones.llava.language import LanguageModel

VOCABULARY = 40


def small_model(
    family: str = "llama",
    kv_heads: int = 4,
    layers: int = 4,
    width: int = 32,
    heads: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **config,
):
    """A `LlamaForCausalLM` or `MistralForCausalLM`; every weight is drawn, norms and biases too."""
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    kinds = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }
    make, build = kinds[family]
    sizes = {
        "hidden_size": width, "intermediate_size": 3 * width // 2, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": VOCABULARY,
        "max_position_embeddings": 1024, "attn_implementation": "sdpa", "eos_token_id": None,
        "bos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    if family == "mistral":
        sizes["sliding_window"] = None
    model = build(make(**{**sizes, **config})).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        scale = 1.0 if "embed" in name else 0.25
        weight.data = 1 + 0.2 * drawn if "norm" in name else scale * drawn
    return model.to(dtype)


def language_of(model) -> LanguageModel:
    return LanguageModel(model.config, model.model, model.lm_head)


def prompt_of(
    width: int = 32, prefix: int = 3, visual: int = 20, suffix: int = 5, seed: int = 0
) -> tuple[Float[Tensor, "m dim"], list[int], list[int]]:
    """Visual rows, ids before them and ids behind them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(visual, width, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCABULARY, (prefix + suffix,), generator=generator).tolist()
    return rows, ids[:prefix], ids[prefix:]
