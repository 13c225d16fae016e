"""A backbone whose output is a feature of the image in the place of logits: a frame's encoder.

The head of a video reads one feature for each frame (`video_head.py`). It is the output of a model
that differs from the loaded backbone in its head alone, so that everything that runs backbones runs
this one too.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asap.errors import RequestError

QUADRANTS = 4


class QuadrantMeans(nn.Module):
    """Means of the patches' tokens over the four quadrants of the patch grid.

    grid: patches down and across; an odd middle row or column belongs to the later half. prefix:
    tokens in front that are no patches. The feature has the quadrants from left to right, the upper
    ones first, each as wide as a token.
    """

    places: Tensor  # patches by quadrant, -1 after the last one of a smaller quadrant

    def __init__(self, grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        rows, columns = (torch.arange(n) >= n // 2 for n in grid)
        quadrant = (2 * rows[:, None].long() + columns.long()).flatten()
        found = [(quadrant == q).nonzero()[:, 0] for q in range(QUADRANTS)]
        most = max(len(one) for one in found)
        padded = [nn.functional.pad(one, (0, most - len(one)), value=-1) for one in found]
        self.register_buffer("places", torch.stack(padded), persistent=False)

    def forward(self, tokens: Float[Tensor, "b n dim"]) -> Float[Tensor, "b four_dim"]:
        """The means of images that have all of their patches: timm's own forward pass."""
        b, n = tokens.shape[:2]
        held = torch.arange(b * n, device=tokens.device).view(b, n)
        return self.means(tokens.flatten(0, 1), held[:, self.prefix :])

    def means(
        self, tokens: Float[Tensor, "total dim"], held: Int[Tensor, "b patches"]
    ) -> Float[Tensor, "b four_dim"]:
        """The means where `held` has the row of each patch's final token, -1 for a dropped patch.

        Every patch counts the token that it ended in, so an average counts once for each of its
        patches. Dropped patches are left out; a quadrant without patches is zero. Sums are taken in
        float32 at least.
        """
        kind = torch.promote_types(tokens.dtype, torch.float32)
        means = []
        for places in self.places:  # one after the other: each is a quarter of the tokens' memory
            rows = torch.where(places >= 0, held[:, places.clamp(min=0)], -1)
            there = (rows >= 0)[..., None]
            chosen = torch.where(there, tokens[rows.clamp(min=0)].to(kind), 0)
            means.append(chosen.sum(1) / there.sum(1).clamp(min=1))
        return torch.cat(means, 1).to(tokens.dtype)


def frame_encoder(backbone: nn.Module, reads: str) -> nn.Module:
    """A backbone that shares the tensors of this one and gives features in the place of logits.

    reads: "class": the class token after the final norm, before any projection, as wide as a token;
    "tokens": `QuadrantMeans` of the patches' tokens after the final norm, four times as wide.
    Raises RequestError, naming the type, for a backbone that has no such tokens.
    """
    kind: Any = type(backbone)
    if kind is not VisionTransformer:
        raise RequestError(
            f"a backbone of type {kind.__name__} encodes no frames: use one of timm's "
            "VisionTransformer, such as backbone=clip_vit_large_336"
        )
    shared = {id(t): t for t in (*backbone.parameters(), *backbone.buffers())}
    encoder: Any = copy.deepcopy(backbone, shared)
    if reads == "tokens":
        encoder.reset_classifier(0, global_pool="")
        grid = tuple(encoder.patch_embed.grid_size)
        encoder.head = QuadrantMeans(grid, encoder.num_prefix_tokens)
        encoder.head.to(next(backbone.parameters()).device)
    elif encoder.cls_token is None or encoder.global_pool != "token":
        raise RequestError(
            f"the backbone pools by {encoder.global_pool!r}, so no class token of it stands for an "
            "image: set head.reads=tokens"
        )
    else:
        encoder.reset_classifier(0)
    return encoder


def feature_width(encoder: Any) -> int:
    """How wide the features of a `frame_encoder` are."""
    four = isinstance(encoder.head, QuadrantMeans)
    return encoder.embed_dim * (QUADRANTS if four else 1)
