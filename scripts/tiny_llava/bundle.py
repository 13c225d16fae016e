"""The checkpoint with its report and its model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import timm
import tokenizers
import torch
import transformers
from transformers import LlavaForConditionalGeneration

from asap.data.digits import render, several
from asap.data.digits.questions import CATEGORIES
from tiny_llava.model import write
from tiny_llava.premise import MEAN, READINGS, Found, Share

CARD = Path(__file__).with_name("card.md")
ROWS = {
    "all": "all 64 rows",
    "object": "rows of digits alone",
    "background": "rows of the background alone",
    "half": "half of the rows, at random",
}


def written(
    model: LlavaForConditionalGeneration,
    folder: Path,
    about: Mapping[str, Any],
    results: Mapping[str, Found],
    missed: list[str],
) -> str:
    """Write checkpoint, `training.json` and `README.md`. Returns the sha256 of the weights.

    `about` is what training.json begins with (recipe, log), `results` the premise test by split,
    `missed` where the premise is missed on calibration digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = write(model, folder)
    report = {
        **about,
        "premise": {split: as_numbers(found) for split, found in results.items()},
        "premise_missed": missed,
        "sha256": digest,
        "versions": {
            "torch": torch.__version__, "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__, "timm": timm.__version__,
            "numpy": np.__version__, "scenes": several.GENERATOR_VERSION,
        },
    }  # fmt: skip
    text = json.dumps(report, indent=1) + "\n"
    (folder / "training.json").write_text(text, "utf-8")
    (folder / "README.md").write_text(card(model, results, missed, digest), "utf-8")
    return digest


def as_numbers(found: Found) -> dict[str, dict[str, dict[str, float]]]:
    """A premise test as JSON has it, shares with four digits."""
    return {
        reading: {
            category: {name: round(value, 4) for name, value in asdict(share).items()}
            for category, share in shares.items()
        }
        for reading, shares in found.items()
    }


def table(found: Found) -> str:
    """A premise test in Markdown, in per cent with 95 % intervals."""
    names = (*CATEGORIES, MEAN)
    lines = ["| rows | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for reading in READINGS:
        cells = [_cell(found[reading][name]) for name in names]
        lines.append(f"| {ROWS[reading]} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{name} {found['all'][name].n:,}" for name in CATEGORIES)
    return "\n".join([*lines, "", f"Questions: {counts}."])


def _cell(share: Share) -> str:
    return f"{100 * share.share:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def card(
    model: LlavaForConditionalGeneration,
    results: Mapping[str, Found],
    missed: list[str],
    digest: str,
) -> str:
    """The model card."""
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (
            ("parameters", model),
            ("tower", model.model.vision_tower),
            ("projector", model.model.multi_modal_projector),
        )
    }
    sizes["language"] = sizes["parameters"] - sizes["tower"] - sizes["projector"]
    digits = {split: len(render.digits_of(split)) for split in render.SPLITS}
    numbers = {name: f"{number:,}" for name, number in (sizes | digits).items()}
    return Template(CARD.read_text("utf-8")).substitute(
        numbers,
        digest=digest,
        met="It is met." if not missed else "It is missed: " + "; ".join(missed) + ".",
        tables="\n\n".join(
            f"On {split} digits:\n\n{table(found)}" for split, found in results.items()
        ),
    )
