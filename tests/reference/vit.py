"""One image through a timm VisionTransformer (or LV-ViT), in float64, one plain step after another.

The weights are the module's own; the two things timm hides are written out: the softmax attention
(so that every map can be looked at) and the sequence of the two halves of a block (so that tokens
can be merged or dropped between them). A method is a callback: once per block it sees the block's
attention and may answer with a shorter sequence.

Shapes: N tokens now in the sequence, h heads, d channels a head, D = width, n patches.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .lvvit_ref import is_lvvit, unfolded

Position = Literal["after_attention", "after_block"]


@dataclass(frozen=True)
class View:
    """What a method sees in one block."""

    block: int  # number of the block, from 1
    n_prefix: int  # tokens before the first patch: class, distillation, registers
    attention: Float[Tensor, "h N N"]  # softmax, rows sum to 1, log-size bias included if it is on
    keys: Float[Tensor, "h N d"]  # as the attention used them (after k-norm)
    values: Float[Tensor, "h N d"]
    tokens: Float[Tensor, "N D"]  # the residual stream where the reduction would happen
    sizes: Float[Tensor, "N"]  # how many original tokens each token stands for


@dataclass(frozen=True)
class Reduction:
    """A method's answer: the new sequence, and where each old token went."""

    tokens: Float[Tensor, "M D"]
    sizes: Float[Tensor, "M"]
    destination: Int[Tensor, "N"]  # position in the new sequence, -1 = dropped


@dataclass(frozen=True)
class Forward:
    """What one forward pass leaves behind."""

    logits: Float[Tensor, "classes"]
    features: Float[Tensor, "M D"]  # after the final norm
    sizes: Float[Tensor, "M"]
    assignment: Int[Tensor, "n"]  # final token of each patch, prefix counted, -1 = dropped
    n_attention: list[int]  # tokens entering each block, and so its attention
    n_mlp: list[int]  # tokens entering each block's MLP
    tokens: list[int]  # L + 1: entering each block, then leaving the last


Reduce = Callable[[View], Reduction | None]


def as_float64(model: VisionTransformer) -> VisionTransformer:
    """The model itself if it is in float64 and evaluation mode, else such a copy of it.

    An LV-ViT is replaced by the reference's own, whose residual branches are divided in the open.
    """
    if is_lvvit(model):
        return unfolded(model)
    if model.training or any(p.dtype != torch.float64 for p in model.parameters()):
        model = copy.deepcopy(model).double().eval()
    return model


@torch.no_grad()
def forward(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    reduce: Reduce | None = None,
    position: Position = "after_attention",
    proportional_attention: bool = False,
) -> Forward:
    """Run one image. `reduce` is called once per block, at `position`."""
    model = as_float64(model)
    x = embed(model, image)
    state = _Sequence(x, model.num_prefix_tokens)
    n_attention: list[int] = []
    n_mlp: list[int] = []
    for number, block in enumerate(model.blocks, start=1):
        if type(block) is not Block or type(block.attn) is not Attention:
            raise NotImplementedError(f"block {number} is {type(block).__name__}")
        n_attention.append(len(state.sizes))
        bias = state.sizes.log() if proportional_attention else None
        out, attention, keys, values = attend(block.attn, block.norm1(state.x), bias)

        def look(number=number, attention=attention, keys=keys, values=values) -> None:
            if reduce is None:
                return
            tokens, sizes, n_prefix = state.x[0], state.sizes, model.num_prefix_tokens
            view = View(number, n_prefix, attention, keys, values, tokens, sizes)
            state.apply(reduce(view))

        state.x = state.x + block.drop_path1(block.ls1(out))
        if position == "after_attention":
            look()
        n_mlp.append(len(state.sizes))
        state.x = state.x + block.drop_path2(block.ls2(block.mlp(block.norm2(state.x))))
        if position == "after_block":
            look()
    features = model.norm(state.x)[0]
    return Forward(
        logits=classify(model, features, state.sizes),
        features=features,
        sizes=state.sizes,
        assignment=state.place[model.num_prefix_tokens :],
        n_attention=n_attention,
        n_mlp=n_mlp,
        tokens=[*n_attention, len(state.sizes)],
    )


class _Sequence:
    """The tokens of one image, their sizes, and where each original token is now."""

    def __init__(self, x: Float[Tensor, "1 N D"], n_prefix: int):
        self.x = x
        self.n_prefix = n_prefix
        self.sizes = torch.ones(x.shape[1], dtype=torch.float64)
        self.place = torch.arange(x.shape[1])

    def apply(self, reduction: Reduction | None) -> None:
        if reduction is None:
            return
        prefix = torch.arange(self.n_prefix)
        assert torch.equal(reduction.destination[: self.n_prefix], prefix), "a prefix token moved"
        self.x = reduction.tokens[None]
        self.sizes = reduction.sizes
        was = self.place.tolist()
        now = reduction.destination.tolist()
        self.place = torch.tensor([-1 if p == -1 else now[p] for p in was], dtype=torch.int64)


def embed(
    model: VisionTransformer, image: Float[Tensor, "c height width"]
) -> Float[Tensor, "1 N D"]:
    """Patches, prefix tokens, positions, and the norm in front of the blocks where there is one."""
    if is_lvvit(model):
        return model.embed(image)
    x = model.patch_embed(image.double()[None])
    x = model._pos_embed(x)  # class, distillation and register tokens are put in front here
    return model.norm_pre(model.patch_drop(x))


def attend(
    attn: Attention, x: Float[Tensor, "1 N D"], key_bias: Float[Tensor, "N"] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax attention head by head: output (1, N, D), maps (h, N, N), keys and values (h, N, d).

    `key_bias` is added to every logit of that key, in every head and for every query.
    """
    heads, width = attn.num_heads, attn.head_dim
    qkv = attn.qkv(x)[0]  # (N, 3 * h * d): all of q, then all of k, then all of v
    maps, keys, values, outputs = [], [], [], []
    for head in range(heads):
        q, k, v = (
            qkv[:, (part * heads + head) * width : (part * heads + head + 1) * width]
            for part in range(3)
        )
        q, k = attn.q_norm(q), attn.k_norm(k)
        logits = q @ k.T * width**-0.5
        if key_bias is not None:
            logits = logits + key_bias[None, :]
        weights = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        weights = weights / weights.sum(dim=1, keepdim=True)
        maps.append(weights)
        keys.append(k)
        values.append(v)
        outputs.append(weights @ v)
    out = attn.norm(torch.cat(outputs, dim=1)[None])
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    return attn.proj(out), torch.stack(maps), torch.stack(keys), torch.stack(values)


def classify(
    model: VisionTransformer, features: Float[Tensor, "M D"], sizes: Float[Tensor, "M"]
) -> Float[Tensor, "classes"]:
    """Logits from the final tokens.

    Three heads: the class token; class and distillation token, each with its own layer, averaged;
    or the mean over patch tokens, in which a token counts as often as it has original tokens, so
    that merging alone does not change it. Dropped tokens count in neither sum. LV-ViT has its own.
    """
    if is_lvvit(model):
        return model.classify(features)
    if isinstance(getattr(model, "head_dist", None), nn.Module):
        return (model.head(features[0]) + model.head_dist(features[1])) / 2
    if model.attn_pool is not None or model.global_pool not in ("token", "avg"):
        raise NotImplementedError(f"global_pool={model.global_pool!r}")
    if model.global_pool == "token":
        pooled = features[0]
    else:
        first = 0 if model.pool_include_prefix else model.num_prefix_tokens
        weight = sizes[first:] / sizes[first:].sum()
        pooled = (weight[:, None] * features[first:]).sum(dim=0)
    return model.head(model.fc_norm(pooled))
