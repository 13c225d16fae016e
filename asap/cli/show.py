"""python -m asap.show: what a method does to a picture of one's own.

    python -m asap.show image=photo.jpg backbone=deit_base method=asap
    python -m asap.show image=photo.jpg backbone=digits_vit method=tome method.r=4
    python -m asap.show image=photo.jpg backbone=timm backbone.name=vit_small_patch16_224 method=ats
    python -m asap.show task=vlm model=<folder> image=photo.jpg question="Is there a dog?"

image is the picture; backbone, backbone.weights and method with its options say what sees it.
Prints the prediction, the stop block, the sink, tokens and multiply-accumulates, and writes the
panels to results/figures/show-<picture>.{png,svg}, in a multirun show-<picture>-<job>.{png,svg}.
With task=vlm it prints the answers to the question, of the full model and of the reduced one, and
the panels show which rows of the picture each of them had.
Exit codes: 0 done; 2 the request is wrong.
"""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from asap.backbones.heads import without_classes
from asap.cli.command import command, one_by_one
from asap.cli.show_question import about, show_answers
from asap.core.order import best_class
from asap.data.base import Sample, image_sample
from asap.data.digits import render as digits
from asap.data.imagenet.boxes import upright
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.engine.trace import Trace
from asap.errors import RequestError
from asap.experiment.job import Job
from asap.measure.session import Session
from asap.methods import Dense, Method
from asap.publish.pictures.panels import explained, named, on_device, pixels_of
from asap.records.disk import guarded, stem_of
from asap.report.figures import scene_panels
from asap.report.figures.treated import SideBySide, Treated, draw_side_by_side
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
TOP = 5


def main() -> None:
    command(one_by_one(work), __doc__)


def work(spec: RunSpec, job: Job) -> None:
    """Show one picture under the chosen method; writes the spec into `job`."""
    if spec.image is None:
        raise RequestError("image is missing: give image=/path/to/photo.jpg")
    if spec.question is not None and not spec.answers:
        raise RequestError(
            f"question={spec.question!r} is for task=vlm: choose it, or leave it out"
        )
    session = Session(replace(spec, head=None))  # a head is for the frames of a clip
    picture = Path(spec.image)
    sample = _sample(session, picture)
    part = f"-{job.number}" if job.several else ""  # each job of a multirun has its own files
    path = spec.results / "figures" / f"show-{stem_of(picture.stem) or 'picture'}{part}"
    if spec.answers:
        sample = about(sample, spec.question)
        with guarded(path.parent):
            _list(show_answers(session, sample, path))
        return
    if spec.backbone.weights == "random":
        log.warning("the weights are random: this says nothing about any method")
    for method, row in zip(session.methods, spec.rows, strict=True):
        _tell(session, method, row.label, sample)
    method = next((m for m in session.methods if not isinstance(m, Dense)), None)
    if method is not None:
        label = spec.rows[session.methods.index(method)].label
        with guarded(path.parent):
            _list(_draw(session, method, label, sample, path))


def _list(files: list[Path]) -> None:
    log.info("files:")
    for file in files:
        log.info("  %s", file)


def _sample(session: Session, path: Path) -> Sample:
    """The picture as the backbone takes it. RequestError if it cannot be read."""
    if not path.is_file():
        raise RequestError(f"image={str(path)!r} is no file: give the path of a picture")
    transform = session.preprocessing.transform
    try:
        picture = open_rgb(path, transform)
    except UnreadableImage as error:
        raise RequestError(f"image={str(path)!r} cannot be read: {error}") from None
    if not upright(picture):
        log.warning(
            "image=%r: the rotation in its EXIF data is ignored, as in timm's evaluation: save it "
            "upright", str(path),
        )  # fmt: skip
    sample = image_sample(0, 0, str(path), -1, 0, transform(picture))
    return replace(sample, extras={"size": picture.size})


def class_names(session: Session) -> list[str]:
    """Names of the backbone's outputs: from its config.json, ImageNet, the digits, else numbers."""
    outputs = int(getattr(session.backbone, "num_classes", 0))
    said = (getattr(session.backbone, "pretrained_cfg", None) or {}).get("label_names")
    if isinstance(said, list | tuple) and len(said) == outputs:
        return [str(name) for name in said]
    if session.spec.backbone.name == "digits_vit":
        return list(digits.CLASSES)
    if outputs == 1000:
        described = ImageNetInfo("imagenet-1k").label_descriptions()
        return [name.split(",")[0] for name in described]  # the first of its synonyms
    return [f"class {i}" for i in range(outputs)]


def _tell(session: Session, method: Method, label: str, sample: Sample) -> None:
    """Print prediction, tokens and cost."""
    model = session.model(method)
    logits, trace = model(on_device(session, sample)[None], [sample.id], return_trace=True)
    features = without_classes(session.backbone)
    log.info("%s: %s", label, features or _best(logits[0], class_names(session)))
    for line in _facts(trace):
        log.info("  %s", line)


def _best(logits: Tensor, names: list[str]) -> str:
    """The most likely classes and their shares."""
    if best_class(logits) is None:
        return "the answer is not finite: use precision=fp32 or bf16"
    shares = logits.float().softmax(0)
    best = torch.argsort(shares, descending=True, stable=True)[:TOP].tolist()
    return ", ".join(f"{names[i]} {100 * shares[i]:.1f} %" for i in best)


def _facts(trace: Trace) -> list[str]:
    stop, sink = int(trace.stop_block[0]), int(trace.sink[0])
    lines = [f"tokens per block: {' '.join(map(str, trace.tokens[0].tolist()))}"]
    lines += [f"{int(trace.macs[0]) / 1e9:.4g} GMACs"]
    if stop:
        lines += [f"first reduced in block {stop}" + (f", sink: patch {sink}" if sink >= 0 else "")]
    return lines


def _draw(session: Session, method: Method, label: str, sample: Sample, path: Path) -> list[Path]:
    """Draw ASAP's maps, or the tokens that any other method left."""
    names = class_names(session)
    if method.explains:
        return scene_panels([explained(session, method, sample, "", names)], path)
    model = session.model(method)
    logits, trace = model(on_device(session, sample)[None], [sample.id], return_trace=True)
    dense = session.model(Dense())
    _, base = dense(on_device(session, sample)[None], [sample.id], return_trace=True)
    spent = int(trace.macs[0]) / int(base.macs_backbone[0])
    treated = Treated(
        label, named(best_class(logits[0]), names), 100 * (spent - 1), trace.assignment[0].numpy()
    )
    grid = session.preprocessing.patch_grid
    row = SideBySide(pixels_of(session, sample), "", grid, (treated,))
    return draw_side_by_side([row], path)
