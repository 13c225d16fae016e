"""How cost grows with tokens, batch and depth, in closed form: nothing here is measured.

    python scripts/model_growth.py          # prints the tables of docs/performance.md
    python scripts/model_growth.py --write  # and puts them there

MACs are those of the project's own cost code (asap/core/macs.py), the method's by what it declares
for each step. The reduction is an example: images stop in the middle block and a third of their
tokens is left. Bytes are those that a batch's maps and P take on a GPU in half precision.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from asap.core.macs import BackboneCost, BlockCost, backbone_macs
from asap.engine.kernels.launch import pitch_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
TOKENS = (197, 257, 577, 1025, 2305)
WIDTHS = {"T": 192, "S": 384, "B": 768, "L": 1024}
MIB = 2**20


def cost_of(width: int, depth: int, tokens: int, patch: int = 16, classes: int = 1000):
    """The cost of a plain ViT with a class token."""
    block = BlockCost(3 * width**2, width**2, 8 * width**2, width)
    embed = (tokens - 1) * 3 * patch**2 * width
    return BackboneCost(embed, classes * width, (block,) * depth)


def backbone_gmacs(cost: BackboneCost, entering: list[int]) -> float:
    """Per image; `entering`: the tokens that enter each block, and that leave the last."""
    return float(backbone_macs(cost, np.array([entering]), "after_attention")[0]) / 1e9


def asap_gmacs(width: int, tokens: int, stop: int, left: int) -> dict[str, float]:
    """Of one image that stops in block `stop`, per step of ASAP with pooling."""
    pooled = tokens - left + 1
    return {
        "walk": stop * 2 * tokens**2 / 1e9,  # two vectors, block by block
        "P": (stop - 1) * tokens**3 / 1e9,  # in the first block P is the map's own
        "distances": (tokens - 1) * tokens / 1e9,
        "pooling": pooled * width / 1e9,
    }


def reduced(width: int, depth: int, tokens: int) -> tuple[float, float, dict[str, float]]:
    """GMACs of dense, of the reduced backbone, and of the method's steps, for the example."""
    stop, left = depth // 2, round(tokens / 3)
    cost = cost_of(width, depth, tokens)
    entering = [tokens] * stop + [left] * (depth - stop + 1)
    dense = backbone_gmacs(cost, [tokens] * (depth + 1))
    return dense, backbone_gmacs(cost, entering), asap_gmacs(width, tokens, stop, left)


def table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def by_tokens(width: int = WIDTHS["B"], depth: int = 12) -> str:
    lines = []
    for n in TOKENS:
        dense, backbone, own = reduced(width, depth, n)
        products = depth * 2 * n * n * width / 1e9
        lines.append([
            f"{n:,}", f"{dense:,.1f}", f"{100 * products / dense:.0f} %",
            f"{100 * (backbone + sum(own.values())) / dense:.1f} %",
            *(f"{100 * own[k] / dense:.2f} %" for k in ("walk", "P")),
        ])  # fmt: skip
    head = ["tokens", "dense, GMACs", "of it attention products", "reduced, of dense"]
    return table([*head, "of it walk", "of it P"], lines)


def by_width(tokens: int = 197, depth: int = 12) -> str:
    lines = []
    for name, width in WIDTHS.items():
        dense, backbone, own = reduced(width, depth, tokens)
        share = 100 * (backbone + sum(own.values())) / dense
        numbers = (f"{100 * own[k] / dense:.2f} %" for k in ("walk", "P"))
        lines.append([f"{name} ({width})", f"{dense:.2f}", f"{share:.1f} %", *numbers])
    head = ["model (width)", "dense, GMACs", "reduced, of dense", "of it walk", "of it P"]
    return table(head, lines)


def by_depth(width: int = WIDTHS["B"], tokens: int = 197) -> str:
    lines = []
    for depth in (12, 24, 32, 40):
        dense, backbone, own = reduced(width, depth, tokens)
        share = 100 * (backbone + sum(own.values())) / dense
        lines.append(
            [f"{depth}", f"{dense:.1f}", f"{share:.1f} %", f"{100 * own['P'] / dense:.2f} %"]
        )
    return table(["blocks", "dense, GMACs", "reduced, of dense", "of it P"], lines)


def memory(batches: tuple[int, ...] = (1, 32, 256)) -> str:
    """Bytes of the maps of one block and of P in 22 bits (two float16 matrices)."""
    lines = []
    for n in TOKENS:
        one = 2 * pitch_of(n) ** 2
        both = (f"{b * one / MIB:,.1f} + {b * 2 * one / MIB:,.1f}" for b in batches)
        lines.append([f"{n:,}", *both])
    return table(["tokens", *(f"batch {b}" for b in batches)], lines)


TABLES = {"tokens": by_tokens, "width": by_width, "depth": by_depth, "memory": memory}


def written(page: str) -> str:
    """The page with its tables made anew."""
    for name, make in TABLES.items():
        pattern, new = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", make()
        page, found = re.subn(pattern, rf"\g<1>{new}\n\g<2>", page, flags=re.S)
        if found != 1:
            raise ValueError(f"the page has {found} places for the table {name!r}")
    return page


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--write", action="store_true", help="put the tables into the page")
    if made.parse_args().write:
        PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    for name, make in TABLES.items():
        sys.stdout.write(f"{name} (modelled)\n\n{make()}\n\n")


if __name__ == "__main__":
    main()
