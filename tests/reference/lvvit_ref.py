"""LV-ViT on one image, in float64, from the tensors of a checkpoint in the released layout.

`dense` is the whole network as plain formulas: no module, no timm. `UnfoldedLVViT` is the same
network in the shape that `vit.forward` walks, so that methods can reduce it; its blocks divide
their residual branches by 2 in the open and its embedding and heads are those of `dense`.

How open points are read
------------------------
* The auxiliary maximum is class by class, over the patch tokens that are left, merged ones
  included; none is weighted by its size. Without any, the class token's logits stand alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

State = Mapping[str, Tensor]
LAYER_NORM_EPS = 1e-5
BATCH_NORM_EPS = 1e-5


def dense(
    state: State, image: Float[Tensor, "3 height width"], heads: int
) -> Float[Tensor, "classes"]:
    """Logits of one image."""
    state = {key: value.double() for key, value in state.items()}
    x = embed(state, image)
    for i in range(depth_of(state)):
        part = f"blocks.{i}."
        normed = layer_norm(state, part + "norm1", x)
        x = x + attention(state, part + "attn.", normed, heads) / 2
        x = x + mlp(state, part + "mlp.", layer_norm(state, part + "norm2", x)) / 2
    return classify(state, layer_norm(state, "norm", x))


def depth_of(state: State) -> int:
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))


def embed(state: State, image: Float[Tensor, "3 height width"]) -> Float[Tensor, "N D"]:
    """Stem, class token in front, positions added to all."""
    x = image.double()[None]
    for i, (stride, padding) in enumerate(((2, 3), (1, 1), (1, 1)), start=1):
        kernel = state[f"patch_embed.conv{i}.weight"]
        x = nn.functional.conv2d(x, kernel, stride=stride, padding=padding)
        x = batch_norm(state, f"patch_embed.bn{i}", x).clamp(min=0)
    kernel = state["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    rows, columns = x.shape[2] // side, x.shape[3] // side
    patches = []
    for row in range(rows):
        for column in range(columns):
            cut = x[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            patches.append((kernel * cut).sum((1, 2, 3)) + state["patch_embed.proj.bias"])
    tokens = torch.stack([state["cls_token"][0, 0], *patches])
    return tokens + state["pos_embed"][0]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """With the statistics of training, whatever the batch."""
    centred = x - state[f"{name}.running_mean"][:, None, None]
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + BATCH_NORM_EPS).sqrt()
    return centred * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def layer_norm(state: State, name: str, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / ((centred**2).mean(1, keepdim=True) + LAYER_NORM_EPS).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(state: State, part: str, x: Float[Tensor, "N D"], heads: int) -> Float[Tensor, "N D"]:
    """Softmax attention; no bias in q, k, v. q is scaled before the product."""
    q, k, v = (x @ state[part + "qkv.weight"].T).chunk(3, dim=1)
    width = q.shape[1] // heads
    outputs = []
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        logits = (q[:, columns] * width**-0.5) @ k[:, columns].T
        raised = (logits - logits.max(1, keepdim=True).values).exp()
        outputs.append(raised / raised.sum(1, keepdim=True) @ v[:, columns])
    return torch.cat(outputs, dim=1) @ state[part + "proj.weight"].T + state[part + "proj.bias"]


def mlp(state: State, part: str, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Two layers with the exact GELU between them."""
    hidden = x @ state[part + "fc1.weight"].T + state[part + "fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return hidden @ state[part + "fc2.weight"].T + state[part + "fc2.bias"]


def classify(state: State, features: Float[Tensor, "N D"]) -> Float[Tensor, "classes"]:
    """Class token, plus half of the best patch token of each class."""
    logits = state["head.weight"] @ features[0] + state["head.bias"]
    scores = [state["aux_head.weight"] @ token + state["aux_head.bias"] for token in features[1:]]
    if not scores:
        return logits
    best = scores[0]
    for score in scores[1:]:
        best = torch.maximum(best, score)
    return logits + best / 2


# --- the same, block by block, for methods ----------------------------------------------------


class Half(nn.Module):
    """What a residual branch goes through before it is added."""

    def forward(self, branch: Tensor) -> Tensor:
        return branch / 2


@dataclass(frozen=True)
class Patches:
    img_size: tuple[int, int]
    num_patches: int


class UnfoldedLVViT(nn.Module):
    """An LV-ViT of unhalved weights whose blocks are timm's with `Half` as layer scale."""

    num_prefix_tokens, has_class_token = 1, True

    def __init__(self, state: State, heads: int, img_size: tuple[int, int]) -> None:
        super().__init__()
        self.state = {key: value.detach().double() for key, value in state.items()}
        self.embed_dim = self.state["cls_token"].shape[2]
        self.patch_embed = Patches(img_size, self.state["pos_embed"].shape[1] - 1)
        self.blocks = nn.ModuleList(self._block(i, heads) for i in range(depth_of(state)))
        self.norm = lambda x: layer_norm(self.state, "norm", x[0])[None]
        self.eval().requires_grad_(False)

    def _block(self, index: int, heads: int) -> Block:
        start = f"blocks.{index}."
        own = {k.removeprefix(start): v for k, v in self.state.items() if k.startswith(start)}
        ratio = len(own["mlp.fc1.bias"]) / self.embed_dim
        block = Block(
            self.embed_dim, heads, ratio,
            norm_layer=lambda width, **_: nn.LayerNorm(width, LAYER_NORM_EPS),
        ).double()  # fmt: skip
        block.load_state_dict(own)
        block.ls1, block.ls2 = Half(), Half()
        return block

    def embed(self, image: Float[Tensor, "3 height width"]) -> Float[Tensor, "1 N D"]:
        return embed(self.state, image)[None]

    def classify(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "classes"]:
        return classify(self.state, features)


_twins: WeakKeyDictionary[nn.Module, tuple[list, UnfoldedLVViT]] = WeakKeyDictionary()


def is_lvvit(model: nn.Module) -> bool:
    """A model with the second head, folded or not."""
    return isinstance(model, UnfoldedLVViT) or hasattr(model, "aux_head")


def unfolded(model: nn.Module) -> UnfoldedLVViT:
    """The reference's twin of a model, made from its state dict, which is the released layout.

    Made again only if the model's tensors have changed.
    """
    if isinstance(model, UnfoldedLVViT):
        return model
    tensors = [*model.parameters(), *model.buffers()]
    version = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
    found = _twins.get(model)
    if found is None or found[0] != version:
        heads = model.blocks[0].attn.num_heads
        twin = UnfoldedLVViT(model.state_dict(), heads, model.patch_embed.img_size)
        found = _twins[model] = (version, twin)
    return found[1]


def outside_macs(model: nn.Module, n_left: int) -> int:
    """Stem, head, and second head on every patch token that is left."""
    state = unfolded(model).state
    height, width = model.patch_embed.img_size
    total = 0
    for i in (1, 2, 3):
        total += state[f"patch_embed.conv{i}.weight"].numel() * (height // 2) * (width // 2)
    total += state["patch_embed.proj.weight"].numel() * model.patch_embed.num_patches
    total += state["head.weight"].numel()
    return total + state["aux_head.weight"].numel() * (n_left - 1)
