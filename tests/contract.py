"""What the contract tests share: models, methods, outcomes, and how two outcomes are compared."""

import functools
from collections.abc import Iterator

import torch
from draws import ATTENTION_GAIN, DEVICE, models, randomise
from peers import predictor_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import asap
from asap.engine.backend import backend_of
from asap.engine.trace import Trace
from asap.methods import (
    ATS,
    PPT,
    Asap,
    Dense,
    DynamicViT,
    EViT,
    Method,
    PruneSID,
    RandomDrop,
    ToMe,
    VisionZip,
    VisPruner,
    ZeroTPrune,
)

ON_CPU = DEVICE.type == "cpu"  # where an image's bits do not depend on its batch
IMAGES = 32
IDS = [1000 + 7 * i for i in range(IMAGES)]
DTYPES = (torch.float32, torch.bfloat16)

ASAP_OPTIONS: dict[str, dict] = {
    "pooling": {},
    "pruning": {"pool": False, "clusters": 3},
    "rollout": {"order": "rollout"},
    "rank": {"binning": "rank", "background": 2},
    "rank_pruning": {"binning": "rank", "background": 3, "pool": False},
    "random_anchor": {"anchor": "random"},
    "mass_anchor": {"anchor": "mass"},
    "force": {"miss": "force", "max_block": 5},
    "static": {"binning": "rank", "miss": "force", "min_block": None, "max_block": 2},
    "after_block": {"position": "after_block"},
    "proportional": {"proportional_attention": True, "weights": "normalised"},
    "no_accumulation": {"accumulate": False},
    "pca_anchor": {"anchor": "pca"},
    "auto": {"clusters": "auto"},
    "budget": {"max_tokens": 6},
    "plugin": {"max_tokens": 6, "plugin": "diffusion", "per_round": 2, "anchor": "pca"},
    "plugin_keys": {"max_tokens": 5, "plugin": "keys", "pool": False, "kappa": 1},
    "plugin_listed": {
        "max_tokens": 6,
        "plugin": "features",
        "per_round": 2,
        "scores": "attention",
        "pair_order": "attention",
    },
    "quiet": {"anchor": "quiet", "distance": "self_aligned", "clusters": "auto"},
    "overhead": {"overhead": True},
}
OTHERS: dict[str, Method] = {
    "dense": Dense(),
    "random_drop": RandomDrop(keep=0.4, block=1),
    "random_drop_few": RandomDrop(keep=0.1, block=0),
    "tome_3": ToMe(3),
    "tome_8": ToMe(8),
    "tome_13": ToMe(13),
    "tome_3_plain": ToMe(3, proportional_attention=False),
    "ppt": PPT(),
    "ppt_pruning": PPT([5, 3, 4], 0.0),
    "ppt_pooling": PPT(threshold=float("inf"), blocks=[1, 2]),
    "evit": EViT(),
    "evit_dropping": EViT(0.6, blocks=[0, 3], fuse=False),
    "ats": ATS(),
    "visionzip": VisionZip(5, 2, block=2),
    "vispruner": VisPruner(5, per_round=4),
    "prunesid": PruneSID(9),
    # layers that a network of four blocks has, and counts that nine patches allow
    "zero_tprune": ZeroTPrune((1, 3, 4), keep=0.7, similar=(2, 1, 0), iterations=(9, 3, 1)),
}
# Squared coefficient of variation of PPT's scores at which a batch splits into both branches.
EVENNESS, EVENNESS_LONG = 7.0, 40.0
METHODS = (*OTHERS, *ASAP_OPTIONS, "ppt_both", "dynamicvit")
CLASS_ATTENTION = (
    "ppt", "ppt_pruning", "ppt_pooling", "ppt_both", "evit", "evit_dropping", "ats", "visionzip",
    "vispruner", "prunesid",
)  # fmt: skip


def sharp(width: int, **options: int) -> nn.Module:
    """A random model whose blocks have nearly the same q and k, and large ones: sinks emerge."""
    model = VisionTransformer(embed_dim=width, num_heads=3, num_classes=11, **options)
    generator = randomise(model, 5)
    shared = torch.randn((2 * width, width), generator=generator) / width**0.5
    with torch.no_grad():
        for block in model.blocks:
            own = block.attn.qkv.weight[: 2 * width]
            own.copy_(ATTENTION_GAIN * (shared + 0.3 * own))
    return model.eval()


OWN_MODELS = {
    # 197 tokens of DeiT-Tiny's width
    "deit": lambda: sharp(192, img_size=224, patch_size=16, depth=4),
    # 10 tokens: so few that the engine takes its images one by one
    "tiny": lambda: sharp(24, img_size=24, patch_size=8, depth=6),
    "shallow": lambda: sharp(24, img_size=40, patch_size=8, depth=4),
}


@functools.cache
def backbone(key: str, dtype: torch.dtype) -> nn.Module:
    return (OWN_MODELS | models())[key]().to(DEVICE, dtype)


@functools.cache
def pictures(key: str, dtype: torch.dtype, count: int = IMAGES) -> Tensor:
    height, width = backbone(key, dtype).patch_embed.img_size
    generator = torch.Generator().manual_seed(11)
    return torch.randn((count, 3, height, width), generator=generator).to(DEVICE, dtype)


@functools.cache
def masses(key: str, dtype: torch.dtype, order: str, count: int) -> Tensor:
    """Largest column mass of every image after every block, nothing being reduced."""
    method = Asap(overhead=True, order=order, anchor="mass")
    model = asap.ReducedViT(backbone(key, dtype), method)
    return model(pictures(key, dtype, count), return_trace=True)[1].mass


def threshold(mass: Tensor, first: int, last: int) -> float:
    """The tau at which the images stop in the most different blocks, and some never."""
    allowed = mass[:, first - 1 : last]

    def variety(tau: float) -> int:
        over = allowed > tau
        stops = torch.where(over.any(1), over.to(torch.uint8).argmax(1) + 1, 0)
        return len(stops.unique()) + 2 * int((stops == 0).any() and (stops > 0).any())

    return max(allowed.flatten().quantile(torch.linspace(0.05, 0.95, 37)).tolist(), key=variety)


@functools.cache
def method(name: str, key: str, dtype: torch.dtype, count: int = IMAGES) -> Method:
    if name in OTHERS:
        return OTHERS[name]
    model = backbone(key, dtype)
    if name == "dynamicvit":
        return DynamicViT(0.6, predictor_file(model.embed_dim))
    if name == "ppt_both":
        evenness = EVENNESS_LONG if key == "deit" else EVENNESS
        return PPT(threshold=evenness / model.patch_embed.num_patches**2)
    options = dict(ASAP_OPTIONS[name])
    if not model.has_class_token:
        options.setdefault("anchor", "mass")
        for needy in ("plugin", "kappa", "scores", "pair_order"):  # they need a class token
            options.pop(needy, None)
    depth = len(model.blocks)
    options["max_block"] = min(options.get("max_block", depth - 1), depth - 1)
    mass = masses(key, dtype, options.get("order", "walk"), count)
    tau = threshold(mass, 1, options["max_block"])
    return Asap(tau=tau, **options)


def accepted(name: str, key: str) -> str:
    """The model, or its like with a class token for a method that asks what it attends to."""
    return key.replace("average-", "average_with_class-") if name in CLASS_ATTENTION else key


def outcome(model: nn.Module, images: Tensor, picked: list[int]) -> tuple[Tensor, Trace]:
    return model(images[picked], [IDS[i] for i in picked], return_trace=True)


def same(left: Tensor, right: Tensor) -> bool:
    """Equal bit for bit on a CPU, numbers to rounding on a GPU; NaN equals NaN."""
    if left.is_floating_point():
        if not torch.equal(left.isnan(), right.isnan()):
            return False
        left, right = left.nan_to_num(), right.nan_to_num()
        if not ON_CPU:
            return torch.allclose(left, right, rtol=1e-4, atol=1e-5)
    return torch.equal(left, right)


def differing(
    whole: tuple[Tensor, Trace], part: tuple[Tensor, Trace], picked: list[int]
) -> list[str]:
    """Names of what differs between some images of a batch and the same images elsewhere."""
    logits, trace = whole
    other_logits, other = part
    index = torch.tensor(picked)
    taken, beside = trace.take(index).values(), other.values()
    assert taken.keys() == beside.keys()
    wrong = [name for name in taken if not same(taken[name], beside[name])]
    return wrong + ([] if same(logits[index], other_logits) else ["logits"])


@functools.cache
def whole(
    name: str, key: str, dtype: torch.dtype, count: int, eager: bool = False
) -> tuple[Tensor, Trace]:
    """All images as one batch, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = reduced(name, key, dtype, count, eager)
        return outcome(model, pictures(key, dtype, count), list(range(count)))
    finally:
        torch.set_num_threads(threads)


def reduced(
    name: str, key: str, dtype: torch.dtype, count: int, eager: bool = False
) -> asap.ReducedViT:
    backend = backend_of(torch.device(DEVICE), eager=eager)
    return asap.ReducedViT(backbone(key, dtype), method(name, key, dtype, count), backend=backend)


def groups(count: int) -> Iterator[list[int]]:
    """All images in another order; seven, two and single ones, from all parts of the batch.

    Of up to nine images, the seven have another order too.
    """
    if count > 9:
        yield torch.randperm(count, generator=torch.Generator().manual_seed(3)).tolist()
    yield [(3 * i + 1) % count for i in range(7)]
    yield [count - 1, 0]
    yield from ([image] for image in (0, count // 2, count - 1))


def check(name: str, key: str, dtype: torch.dtype, count: int, eager: bool = False) -> None:
    """Groups of the images have the bits that they have in the whole batch on one thread."""
    key = accepted(name, key)
    expected = whole(name, key, dtype, count, eager)
    model, images = reduced(name, key, dtype, count, eager), pictures(key, dtype, count)
    for picked in groups(count):
        wrong = differing(expected, outcome(model, images, picked), picked)
        assert not wrong, f"{name} on {key} in {dtype}, images {picked}: {wrong}"
