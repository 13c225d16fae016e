"""The vision tower: what it starts from, what it learns, and the features that LLaVA reads.

It starts from the bundled classifier of single digits, of the same width, depth and heads, whose
GELU becomes QuickGELU and which gets CLIP's layer norm before the first block. It learns two
things, by linear heads that are thrown away: from the class row after the last block, which digits
are there (in place of CLIP's text side); from every patch's row at the output of the last block
but one, the layer that LLaVA reads, what the patch shows, where it is, and of the digit that it
shows where its centre is and how large it is. Without the second loss, rows of the background
answer questions as well as rows of the object do.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPVisionModel

from asap.data.digits.render import SIZE
from tiny_llava.scenes import BACKGROUND, PATCH, SIDE, Scenes

BACKGROUND_WEIGHT = 0.3  # of a patch without a digit, in the loss of what a patch shows


class TowerTraining(nn.Module):
    """The tower with the heads that only its training needs."""

    def __init__(self, tower: CLIPVisionModel):
        super().__init__()
        width = tower.config.hidden_size
        self.tower = tower
        self.presence = nn.Linear(width, 10)
        self.norm = nn.LayerNorm(width)
        self.shows = nn.Linear(width, 11)
        self.place = nn.Linear(width, 2)
        self.digit = nn.Linear(width, 3)

    def loss(self, scenes: Scenes, chosen: np.ndarray) -> Tensor:
        """Of the scenes `chosen`, (n,) int: the sum of the two losses."""
        shown = torch.from_numpy(scenes.patches[chosen].astype(np.int64))
        places, digits = patch_targets(scenes, chosen)
        presence, rows = self(pixels(scenes.images[chosen]))
        weights = torch.ones(11)
        weights[BACKGROUND] = BACKGROUND_WEIGHT
        on_digit = shown != BACKGROUND
        return (
            F.binary_cross_entropy_with_logits(presence, present(scenes.labels[chosen]).float())
            + F.cross_entropy(self.shows(rows).flatten(0, 1), shown.flatten(), weights)
            + 0.5 * F.mse_loss(self.place(rows), places.expand(len(rows), -1, -1))
            + F.mse_loss(self.digit(rows)[on_digit], digits[on_digit])
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of presence (n, 10) and the normalised rows of patches (n, 64, width)."""
        out = self.tower(pixel_values=images, output_hidden_states=True)
        return self.presence(out.pooler_output), self.norm(out.hidden_states[-2][:, 1:])

    @torch.no_grad()
    def measured(self, scenes: Scenes) -> dict[str, float]:
        """Shares of right answers: presence, object patches, background patches; and in pixels,
        the mean error of a digit's centre from left to right, by object patches.
        """
        right = {"presence": [], "object": [], "background": []}
        aside = []
        for start in range(0, len(scenes), 100):
            chosen = np.arange(start, min(start + 100, len(scenes)))
            presence, rows = self(pixels(scenes.images[chosen]))
            shown = torch.from_numpy(scenes.patches[chosen].astype(np.int64))
            on_digit, found = shown != BACKGROUND, self.shows(rows).argmax(-1) == shown
            right["presence"].append((presence > 0) == present(scenes.labels[chosen]))
            right["object"].append(found[on_digit])
            right["background"].append(found[~on_digit])
            digits = patch_targets(scenes, chosen)[1]
            aside.append((self.digit(rows) - digits)[on_digit][:, 0].abs() * SIZE / 2)
        shares = {name: torch.cat([v.flatten() for v in values]).float().mean()
                  for name, values in right.items()}  # fmt: skip
        shares["aside_px"] = torch.cat(aside).mean()
        return {name: round(float(share), 4) for name, share in shares.items()}


def pixels(images: np.ndarray) -> Tensor:
    """(n, 112, 112, 3) uint8 -> (n, 3, 112, 112) float32 in [-1, 1], as the picture processor."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def present(labels: np.ndarray) -> Tensor:
    """(n, 3) classes, -1 for none -> (n, 10) bool."""
    return (torch.from_numpy(labels.astype(np.int64))[..., None] == torch.arange(10)).any(1)


def patch_targets(scenes: Scenes, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Where patches are, (64, 2): x and y of -1 to 1 from edge to edge. And of the digit that a
    patch shows, (n, 64, 3): the same of its centre, and its edge, of 28 to 44 pixels as -1 to 1; of
    any digit where it shows none.
    """
    at = torch.arange(SIDE * SIDE)
    middles = torch.stack([at % SIDE, at // SIDE], -1) * PATCH + PATCH / 2
    shown = scenes.patches[chosen][:, :, None] == scenes.labels[chosen][:, None, :]
    places = torch.from_numpy(np.array(scenes.places[chosen]))
    which = torch.from_numpy(shown.argmax(-1))[..., None].expand(-1, -1, 3)
    digits = places.gather(1, which)
    scale, middle = (
        torch.tensor([SIZE / 2, SIZE / 2, 8.0]),
        torch.tensor([SIZE / 2, SIZE / 2, 36.0]),
    )
    return middles / (SIZE / 2) - 1, (digits - middle) / scale


def start_from_classifier(tower: CLIPVisionModel, weights: Path) -> None:
    """Give the tower the weights of the timm classifier in a safetensors file, in place."""
    old = {name: tensor.float() for name, tensor in load_file(weights).items()}
    places = old["pos_embed"][0].clone()
    places[1:] += old["patch_embed.proj.bias"]  # CLIP's convolution has no bias
    new = {
        "embeddings.class_embedding": old["cls_token"][0, 0],
        "embeddings.position_embedding.weight": places,
        "embeddings.patch_embedding.weight": old["patch_embed.proj.weight"],
    }
    inner = {
        "layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    }  # fmt: skip
    for kind in ("weight", "bias"):
        new[f"post_layernorm.{kind}"] = old[f"norm.{kind}"]
        for i in range(tower.config.num_hidden_layers):
            there, here = f"blocks.{i}.", f"encoder.layers.{i}."
            for ours, theirs in inner.items():
                new[f"{here}{ours}.{kind}"] = old[f"{there}{theirs}.{kind}"]
            parts = old[f"{there}attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                new[f"{here}self_attn.{name}_proj.{kind}"] = part
    # So that rows keep about the size that the first block is used to.
    width = tower.config.hidden_size
    new["pre_layrnorm.weight"] = torch.full((width,), 1.3)
    new["pre_layrnorm.bias"] = torch.zeros(width)
    tower.load_state_dict(new)


@torch.no_grad()
def features(tower: CLIPVisionModel, scenes: Scenes) -> Tensor:
    """What LLaVA reads of every scene: (n, 64, width) float16."""
    tower.eval()
    found = torch.empty(len(scenes), SIDE * SIDE, tower.config.hidden_size, dtype=torch.float16)
    for start in tqdm(range(0, len(scenes), 100), desc="features", mininterval=5):
        images = pixels(scenes.images[start : start + 100])
        rows = tower(pixel_values=images, output_hidden_states=True).hidden_states[-2]
        found[start : start + 100] = rows[:, 1:].half()
    return found
