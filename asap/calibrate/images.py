"""Which images calibration may see: training or calibration images, never evaluation labels."""

from dataclasses import replace
from pathlib import Path

from asap.data.layouts import recognise
from asap.errors import RequestError
from asap.runs.spec import DataSpec, RunSpec


def calibration_spec(spec: RunSpec) -> RunSpec:
    """The run with its calibration images in the place of its evaluation images.

    Scenes of digits have a calibration split. ImageNet's training images are looked for beside the
    validation folder or at `calibrate.path`, any other folder's at `calibrate.path` alone. Raises
    RequestError where there are none, and where they hold evaluation images.
    """
    images = spec.calibrate.images
    data = _data(spec.data, spec.calibrate.path)
    return replace(spec, data=replace(data, images=images), limit=images)


def _data(data: DataSpec, path: str | None) -> DataSpec:
    if data.name == "digits":
        if path is not None:
            raise RequestError(f"calibrate.path={path!r} is not for data=digits: leave it null")
        return replace(data, split="calibration" if data.split == "evaluation" else data.split)
    if data.name.startswith("imagenet"):
        beside = data.path if data.name in ("imagenet", "imagenet_real") else None
        given = path if path is not None else beside
        train = None if given is None else _train(Path(given), given == path)
        if train is None:
            raise RequestError(
                f"data={data.name} is for evaluation, and data.path={data.path!r} has no folder "
                "train: give training images with calibrate.path=/data/imagenet/train"
            )
        _refuse_evaluation(train, None if data.path is None else _evaluation(Path(data.path)))
        return replace(
            data, name="imagenet", path=str(train), split="train",
            labels=None, boxes=None, strict=False,
        )  # fmt: skip
    if path is None:
        raise RequestError(
            f"data={data.name} is for evaluation and calibration never sees it: give a folder of "
            "training images with calibrate.path=/my/training/images"
        )
    _refuse_evaluation(Path(path), None if data.path is None else Path(data.path))
    return replace(data, path=path)


def _train(given: Path, itself: bool) -> Path | None:
    """The folder `train` in a folder; else the folder itself, if it was named as such."""
    if (given / "train").is_dir():
        return given / "train"
    return given if itself else None


def _evaluation(root: Path) -> Path | None:
    """The evaluation images' folder, if they are in class folders as training images are."""
    layout = recognise(root) if root.exists() else None
    return layout.place if layout is not None and layout.kind == "folders" else None


def _refuse_evaluation(train: Path, evaluation: Path | None) -> None:
    """RequestError if one folder is or lies in the other."""
    if evaluation is None:
        return
    one, other = train.resolve(), evaluation.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise RequestError(
            f"calibrate.path={str(train)!r} shares images with the evaluation folder "
            f"{str(evaluation)!r}: give a folder of training images"
        )
