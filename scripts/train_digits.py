"""Train the bundled default model: a 12-block ViT on scenes of handwritten digits.

    python scripts/train_digits.py      # about an hour on 2 CPU cores, resumes after Ctrl-C

The recipe was fixed before the run, and the weights of the last step are kept: nothing is selected
on evaluation digits. Writes `<out>/weights.safetensors` (fp16) and `<out>/training.json` (recipe,
loss and calibration accuracy during training).
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from asap.data.digits import render as digits

# isort: split
import timm  # after asap: its guard of torchvision
from timm.models.vision_transformer import VisionTransformer


@dataclass(frozen=True)
class Recipe:
    """How the model is trained; a batch is one step."""

    steps: int = 7000
    batch: int = 64  # scenes
    lr: float = 1e-3  # the highest, of the one-cycle schedule
    weight_decay: float = 0.05  # of matrices; vectors have none
    label_smoothing: float = 0.1
    easy_share: float = 0.3  # of the steps, in which scenes become as hard as the evaluated ones
    seed: int = 0
    precision: str = "bf16 autocast"


@dataclass(frozen=True)
class Architecture:
    """Arguments of timm's VisionTransformer."""

    img_size: int = 112
    patch_size: int = 14
    embed_dim: int = 96
    depth: int = 12
    num_heads: int = 3
    num_classes: int = 10


RECIPE, ARCHITECTURE = Recipe(), Architecture()


class TrainingScenes(Dataset):
    """Scene `i` is for step `i // batch`. Early scenes are easier: large digits, plain ground."""

    def __len__(self) -> int:
        return RECIPE.steps * RECIPE.batch

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        ease = max(0.0, 1 - i / len(self) / RECIPE.easy_share)
        level = digits.Difficulty(36 + 44 * ease, 64 + 36 * ease, 1 - ease)
        s = digits.scene("train", RECIPE.seed, i, level)
        return torch.from_numpy(s.image).permute(2, 0, 1), s.label


def normalise(images: torch.Tensor) -> torch.Tensor:
    return images.float().div(127.5).sub(1)


@torch.no_grad()
def accuracy(model: torch.nn.Module, split: str, n: int) -> float:
    model.eval()
    correct = 0
    for start in range(0, n, 100):
        scenes = [digits.scene(split, 0, i) for i in range(start, min(start + 100, n))]
        images = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2)
        guess = model(normalise(images)).argmax(-1)
        correct += int((guess == torch.tensor([s.label for s in scenes])).sum())
    model.train()
    return correct / n


def train(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(RECIPE.seed)
    model = VisionTransformer(**asdict(ARCHITECTURE))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": RECIPE.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RECIPE.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RECIPE.lr, total_steps=RECIPE.steps, pct_start=0.1
    )
    log, step, started = [], 0, time.time()
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, log = state["step"], state["log"]
    data = TrainingScenes()
    rest = range(step * RECIPE.batch, len(data))
    loader = DataLoader(data, RECIPE.batch, sampler=rest, num_workers=1, prefetch_factor=8)
    bar = tqdm(loader, total=RECIPE.steps, initial=step, mininterval=10)
    for images, labels in bar:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(normalise(images))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=RECIPE.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        if step % 500 == 0 or step == RECIPE.steps:
            top1 = accuracy(model, "calibration", 500)
            log.append({"step": step, "loss": round(float(loss), 4), "calibration_top1": top1})
            bar.write(json.dumps(log[-1] | {"minutes": round((time.time() - started) / 60, 1)}))
            state = dict(
                model=model.state_dict(), optimizer=optimizer.state_dict(),
                schedule=schedule.state_dict(), step=step, log=log,
            )  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    finish(model, out, log)


def finish(model: torch.nn.Module, out: Path, log: list[dict]) -> None:
    weights = out / "weights.safetensors"
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    report = dict(
        recipe=asdict(RECIPE), architecture=asdict(ARCHITECTURE), sha256=digest, log=log,
        torch=torch.__version__, timm=timm.__version__, numpy=np.__version__,
    )  # fmt: skip
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{weights}  sha256 {digest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/training/digits_vit"))
    train(parser.parse_args().out)
