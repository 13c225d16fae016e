"""Does weighting the diffusion distance change the order of patches? (paper, Appendix A)

    python scripts/appendix_a.py                              # the embedded model; under a minute
    python scripts/appendix_a.py --tau 2.5 --images 500
    python scripts/appendix_a.py --backbone deit_base_patch16_224.fb_in1k \\
        --folder /data/imagenet/val --images 1000             # the paper's setting

The paper drops the weights 1/pi of the diffusion distance and states that the order of distances to
the sink hardly changes. This script computes, for every image that stops, Spearman's rho between
`||P_i - P_s||` and `sum_j (P_ij - P_sj)^2 / pi_j` over the patches other than the sink, where pi is
the column mean of P. It prints the mean and other statistics over the images.
"""

import argparse
import sys
from typing import TypeAlias

import torch
from rich.console import Console
from tqdm import tqdm

import asap
from asap.backbones.accepted import adapter_of
from asap.backbones.preprocess import preprocessing_of
from asap.core.agreement import rank_agreement
from asap.data.digits.scenes import DigitScenes
from asap.data.images.folder import ImageFolder
from asap.errors import RequestError
from asap.methods import Asap
from asap.publish.pictures.explain import walk_at_stop
from asap.spec.paths import path_argument

Images: TypeAlias = DigitScenes | ImageFolder


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="digits_vit", help="name of the backbone")
    parser.add_argument("--weights", help="file of weights; default: bundled, or from the hub")
    parser.add_argument(
        "--folder", type=path_argument, help="one sub-folder per class; default: scenes"
    )
    parser.add_argument("--images", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--tau", type=float, default=3.0, help="threshold (default: %(default)s)")
    parser.add_argument("--alpha", type=float, default=0.5, help="default: %(default)s")
    return parser.parse_args()


def load(given: argparse.Namespace) -> tuple[torch.nn.Module, Images]:
    bundled = "bundled" if given.backbone == "digits_vit" else "hub"
    backbone = asap.load_backbone(given.backbone, given.weights or bundled)
    transform = preprocessing_of(backbone).transform
    if given.folder is None:
        return backbone, DigitScenes("calibration", given.images, 0, transform)
    return backbone, ImageFolder(given.folder, transform)


def agreements(backbone: torch.nn.Module, method: Asap, data: Images, count: int) -> torch.Tensor:
    """Rho of every image that stopped, among `count` evenly spaced images."""
    found = []
    prefix = adapter_of(backbone).anatomy.prefix
    for i in tqdm(range(count), leave=False):
        sample = data[i * len(data) // count]
        seen = None if sample.image is None else walk_at_stop(backbone, method, sample.image)
        if seen is not None:
            found.append(rank_agreement(*seen, prefix))
    return torch.cat(found) if found else torch.empty(0)


def main() -> int:
    given, console = arguments(), Console()
    try:
        backbone, data = load(given)
        method = Asap(tau=given.tau, alpha=given.alpha)
    except (RequestError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    count = min(given.images, len(data))
    rho = agreements(backbone, method, data, count)
    if not len(rho):
        console.print(f"None of {count} images exceeds tau={given.tau}: choose a smaller one.")
        return 1
    low, median = rho.quantile(torch.tensor([0.05, 0.5], dtype=rho.dtype)).tolist()
    console.print(
        f"{given.backbone}, tau={given.tau}, alpha={given.alpha}: "
        f"{len(rho)} of {count} images stop\n"
        f"Spearman's rho: mean {rho.mean():.4f}, standard deviation {rho.std():.4f}, "
        f"5 % quantile {low:.4f}, median {median:.4f}, lowest {rho.min():.4f}",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
