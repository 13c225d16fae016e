"""A Llama or Mistral language model of transformers as the parts that the decoder walks over."""

from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from asap.core.language_macs import LanguageCost
from asap.errors import RequestError

_FAMILIES = {"LlamaModel": ("llama", "Llama"), "MistralModel": ("mistral", "Mistral")}
_LINEAR = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class LanguageModel(nn.Module):
    """The language model of a LLaVA: embedding, decoder layers, final norm, output layer.

    config: transformers' `LlamaConfig` or `MistralConfig`. model: its `LlamaModel` or
    `MistralModel`. lm_head: `nn.Linear`. The modules are used, transformers' forward passes are
    not. RequestError names a module of another kind (subclasses and quantised layers included),
    sliding-window attention, and a rotation of another kind than "default".
    """

    def __init__(self, config: Any, model: Any, lm_head: Any):
        super().__init__()
        _check(config, model, lm_head)
        self.config = config
        self.model: Any = model
        self.lm_head: nn.Linear = lm_head
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_width: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self._tables: tuple[Tensor, Tensor] | None = None

    @property
    def cost(self) -> LanguageCost:
        return LanguageCost(
            layers=len(self.layers),
            width=self.config.hidden_size,
            mlp=self.config.intermediate_size,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            vocabulary=self.lm_head.out_features,
        )

    @property
    def layers(self) -> Any:
        """The decoder layers, first to last, an `nn.ModuleList`."""
        return self.model.layers

    @property
    def norm(self) -> Any:
        """The norm before the output layer."""
        return self.model.norm

    @property
    def positions(self) -> int:
        """Positions that the model knows: the most rows of a prompt with its answer."""
        return self.config.max_position_embeddings

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def embed(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """The rows of token ids."""
        return self.model.embed_tokens(ids)

    def rotary(self) -> tuple[Float[Tensor, "positions d"], Float[Tensor, "positions d"]]:
        """Cosine and sine of the rotation at every position, for rotated halves of a head.

        Angles are computed in float32 in every precision, from frequencies that no conversion of
        the model to half precision has rounded. Made once per device and precision.
        """
        kept = self._tables
        if kept is None or (kept[0].device, kept[0].dtype) != (self.device, self.dtype):
            d, base = self.head_width, self.config.rope_parameters["rope_theta"]
            frequencies = 1.0 / (base ** (torch.arange(0, d, 2, dtype=torch.float) / d))
            positions = torch.arange(self.positions, dtype=torch.float, device=self.device)
            angles = (positions[:, None] * frequencies.to(self.device)).repeat(1, 2)
            kept = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
            self._tables = kept
        return kept


def _check(config: Any, model: Any, lm_head: Any) -> None:
    """Refuse what the decoder does not know, by name."""
    folder, family = _FAMILIES.get(type(model).__name__, ("llama", "Llama"))
    kinds = f"transformers.models.{folder}.modeling_{folder}.{family}"
    _exactly(model, f"{kinds}Model", "language model")
    _exactly(model.rotary_emb, f"{kinds}RotaryEmbedding", "rotary_emb")
    _exactly(model.embed_tokens, "torch.nn.modules.sparse.Embedding", "embed_tokens")
    _exactly(model.norm, f"{kinds}RMSNorm", "norm")
    _exactly(lm_head, "torch.nn.modules.linear.Linear", "lm_head")
    for index, layer in enumerate(model.layers):
        _exactly(layer, f"{kinds}DecoderLayer", at := f"layers.{index}")
        _exactly(layer.self_attn, f"{kinds}Attention", f"{at}.self_attn")
        _exactly(layer.mlp, f"{kinds}MLP", f"{at}.mlp")
        for name in ("input_layernorm", "post_attention_layernorm"):
            _exactly(getattr(layer, name), f"{kinds}RMSNorm", f"{at}.{name}")
        for name in _LINEAR:
            _exactly(attrgetter(name)(layer), "torch.nn.modules.linear.Linear", f"{at}.{name}")
    if window := getattr(config, "sliding_window", None):
        raise RequestError(
            f"the language model has sliding_window={window}, which is not supported: "
            "use a checkpoint with sliding_window null"
        )
    if (rope := config.rope_parameters["rope_type"]) != "default":
        raise RequestError(
            f"the language model has rope_type={rope!r}, which is not supported: "
            "use a checkpoint with rope_type 'default'"
        )


def _exactly(module: Any, kind: str, at: str) -> None:
    """RequestError unless the module is of exactly this class."""
    found = f"{type(module).__module__}.{type(module).__qualname__}"
    if found != kind:
        raise RequestError(
            f"the language model's {at} is {found}, not {kind}: "
            "use a checkpoint with an unchanged Llama or Mistral"
        )
