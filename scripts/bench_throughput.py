"""Time methods on a backbone by the full protocol, and write a record.

    python scripts/bench_throughput.py                                 # the embedded model
    python scripts/bench_throughput.py --device cuda --precision float16 --batch-size 32 256 \\
        --backbone deit_base_patch16_224.fb_in1k --images /data/imagenet/val \\
        --method "asap tau=3.0 clusters=4" "tome r=13"

Methods and both dense baselines take turns in every round (see asap/measure/timing.py). Prints the
paired ratios and writes results/bench/<device>/<backbone>-<precision>-<time>.json. The images are
digit scenes, resized to the backbone's size, or those of a folder with one sub-folder per class;
the record names them.

Run it on an idle machine. On a busy CPU use `--threads 1`, which is timed by CPU time.
"""

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import asap
from asap.data.base import DataSet
from asap.data.digits.scenes import DigitScenes
from asap.data.images.folder import ImageFolder
from asap.errors import RequestError
from asap.measure.throughput import ThroughputPlan, TimedTogether, measure_throughput
from asap.measure.timed_images import load_pictures
from asap.methods import Method, build
from asap.records.schema import CLOCKS, environment
from asap.spec.paths import path_argument

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_METHODS = ("dense", "asap", "tome r=4")


def method_of(text: str) -> Method:
    """A method from "name option=value ..."; values that are not JSON are taken as text."""
    name, *options = text.split()
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise RequestError(f"--method {text!r}: {option!r} is not of the form option=value")
        try:
            found[key] = json.loads(value.replace("True", "true").replace("False", "false"))
        except json.JSONDecodeError:
            found[key] = value
    return build(name, found)


def data_for(config: dict[str, Any], images: Path | None, count: int, seed: int) -> DataSet:
    """Digit scenes or a folder, with the transform of the backbone."""
    from timm.data import create_transform  # after asap: its guard

    transform = create_transform(**config)
    if images is not None:
        return ImageFolder(images, transform)
    return DigitScenes("evaluation", count, seed, transform)


def ratio_text(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return "refused"
    return f"{ratio['median']:.3f} [{ratio['lo']:.3f}, {ratio['hi']:.3f}]"


def table_of(sessions: list[TimedTogether]) -> tuple[Table, list[str]]:
    """Speeds and paired ratios with their 95 % intervals, and the reasons for refusals."""
    table = Table(title=f"Images per second, and paired ratios, on {sessions[0].device_name}")
    heads = ("batch", "img/s", "fused dense", "eager dense", "ratio to fused", "ratio to eager")
    table.add_column("method")
    for head in (*heads, "tokens", "stop block: images"):
        table.add_column(head, justify="right")
    refused = []
    for session in sessions:
        for name in session.speeds:
            found = session.fields(name)
            speeds = (
                found[key]["median"] for key in ("images_per_s", "fused_dense", "eager_dense")
            )
            stops = " ".join(f"{k}:{v}" for k, v in found["stop_histogram"].items())
            table.add_row(
                name, str(found["batch_size"]), *(f"{speed:.1f}" for speed in speeds),
                ratio_text(found["ratio_fused"]), ratio_text(found["ratio_eager"]),
                f"{found['tokens_mean']:.1f}", stops,
            )  # fmt: skip
            if found["refused"]:
                refused.append(f"{name}, batch {found['batch_size']}: {found['refused']}")
    return table, refused


def record_of(
    sessions: list[TimedTogether], given: argparse.Namespace, data: str
) -> dict[str, Any]:
    """The content of the record file."""
    cells = [
        {"label": name} | session.fields(name) | {"circumstances": session.circumstances(name)}
        for session in sessions
        for name in session.speeds
    ]
    request = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    request["images"] = None if given.images is None else given.images.name
    del request["out"]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": request,
        "backbone": given.backbone,
        "data": data,
        "cells": cells,
        "environment": environment(),
    }


def write(record: dict[str, Any], folder: Path) -> Path:
    """Write the record to a new file in the folder of the device's name."""
    cell = record["cells"][0]
    place = folder / re.sub(r"[^a-z0-9]+", "-", cell["device_name"].lower()).strip("-")
    place.mkdir(parents=True, exist_ok=True)
    stamp = re.sub(r"[^0-9T]", "", record["created"].split("+")[0])
    path = place / f"{record['backbone']}-{cell['precision']}-{stamp}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return path


def run(given: argparse.Namespace) -> tuple[list[TimedTogether], str]:
    """One session per batch size, and the description of the data."""
    from timm.data import resolve_model_data_config

    if given.threads:
        torch.set_num_threads(given.threads)
    methods = {text: method_of(text) for text in given.method}
    plan = ThroughputPlan(
        given.rounds, given.seconds, given.discard, given.rounds < 20 or given.seconds < 0.5,
        given.warmup,
    )  # fmt: skip
    backbone = asap.load_backbone(given.backbone, given.weights)
    config = resolve_model_data_config(backbone)
    backbone = backbone.to(given.device, getattr(torch, given.precision))
    data = data_for(config, given.images, given.count, given.seed)
    mean, std = config["mean"], config["std"]
    with tqdm(total=min(given.count, len(data)), desc="images", unit="image") as bar:
        pictures = load_pictures(data, given.count, mean, std, given.device, given.seed, bar.update)
    sessions = []
    for size in given.batch_size:
        with tqdm(total=plan.steps(len(methods) + 2), desc=f"batch {size}", unit="turn") as bar:
            session = measure_throughput(
                backbone, methods, pictures, size, mean, std, plan,
                seed=given.seed, progress=bar.update,
            )  # fmt: skip
        sessions.append(session)
    return sessions, data.description


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--backbone", default="digits_vit", help="digits_vit or a timm name")
    made.add_argument("--weights", default="hub", help="hub, bundled, random or a file")
    made.add_argument("--method", nargs="+", default=list(DEFAULT_METHODS), metavar='"NAME K=V"')
    made.add_argument(
        "--images", type=path_argument, help="folder of images; default: digit scenes"
    )
    made.add_argument("--count", type=int, default=2048, help="images held on the device")
    made.add_argument("--batch-size", type=int, nargs="+", default=[64])
    made.add_argument("--device", default="cpu")
    made.add_argument("--precision", default="float32", choices=("float32", "float16", "bfloat16"))
    made.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--seconds", type=float, default=0.5, help="per candidate and round")
    made.add_argument("--discard", type=int, default=2, help="rounds run before and not counted")
    made.add_argument("--warmup", type=float, default=10.0, help="seconds, all candidates together")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=ROOT / "results" / "bench")
    return made


def main(arguments: list[str] | None = None) -> int:
    commands = parser()
    given = commands.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        sessions, data = run(given)
        path = write(record_of(sessions, given, data), given.out)
    except (RequestError, ValueError, OSError) as error:
        commands.error(str(error))  # exit 2
    table, refused = table_of(sessions)
    console.print(table)
    first = sessions[0]
    lines = [f"{data}; {first.precision}, {CLOCKS[first.clock]}, {first.threads} threads."]
    if given.weights == "random":
        lines.append("Random weights: what a method keeps, and so its speed, means nothing.")
    lines += [*(f"Refused: {text}" for text in refused), f"Record: {path}"]
    console.print("\n".join(lines), markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
