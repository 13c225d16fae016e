"""Which images calibration may see: training or calibration images, never evaluation labels.

Without training images, a slice of the validation images without its labels, for MACs alone.
"""

from dataclasses import replace
from pathlib import Path

from asap.data.imagenet.layouts import recognise
from asap.data.imagenet.names import synsets
from asap.data.images.listing import class_folders
from asap.data.kinetics.kinetics import KineticsOptions
from asap.data.open import options_of
from asap.data.video.options import ClipOptions, with_split
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec, RunSpec


def calibration_spec(spec: RunSpec) -> RunSpec:
    """The run with its calibration images in place of its evaluation images.

    Embedded scenes and clips have a calibration split, Kinetics has training clips. ImageNet's
    training images are looked for beside the validation folder or at `calibrate.path`, those of any
    other folder only at `calibrate.path`.
    RequestError if there are none, or if there are evaluation images among them. If `blind(spec)`,
    the slice of the validation images instead.
    """
    images = spec.calibrate.images
    if blind(spec):
        return replace(spec, data=replace(spec.data, part="slice"), limit=images)
    return replace(spec, data=_data(spec.data, spec.calibrate.path, images), limit=images)


def cost_spec(spec: RunSpec) -> RunSpec | None:
    """The run with the training images on which costs are measured.

    None: the images of `calibration_spec` serve for costs too, as always if `blind(spec)`. For the
    digits these are training digits, eleven times as many as the calibration split has.
    """
    images = spec.calibrate.cost_images
    if images is None or blind(spec):
        return None
    data = _data(spec.data, spec.calibrate.path, images, split="train")
    return replace(spec, data=data, limit=images)


def blind(spec: RunSpec) -> bool:
    """True if calibration uses validation images, and therefore must not see their labels.

    `calibrate.slice` decides; "auto": if ImageNet has no training images, or Kinetics no training
    clips. RequestError for a folder of training images that would not be used.
    """
    c, data = spec.calibrate, spec.data
    if c.slice == "validation" and c.path is not None:
        raise RequestError(
            f"calibrate.slice=validation does not look at calibrate.path={c.path!r}: "
            "use calibrate.slice=train, or leave one of them out"
        )
    if c.slice != "auto":
        return c.slice == "validation"
    if data.name == "kinetics" and c.path is None:
        return not _has_training_clips(data)
    if data.name != "imagenet" or c.path is not None or data.path is None:
        return False
    return _train(Path(data.path), False) is None


def evaluation_spec(spec: RunSpec) -> RunSpec:
    """The run without the images on which its operating points are found."""
    return replace(spec, data=replace(spec.data, part="rest")) if blind(spec) else spec


def _data(data: DataSpec, path: str | None, images: int, split: str = "calibration") -> DataSpec:
    """The training images for a data set; `images` scenes of a split of the digits."""
    data = replace(data, title=None)  # it names the evaluation images
    if data.name == "digits":
        if path is not None:
            raise RequestError(f"calibrate.path={path!r} is not for data=digits: leave it null")
        own = data.options
        if split == "calibration" and own.get("split", "evaluation") != "evaluation":
            split = own["split"]
        return replace(data, options={**own, "split": split, "images": images})
    if isinstance(options_of(data), ClipOptions):
        return _clips(data, path, split)
    if data.name.startswith("imagenet"):
        beside = data.path if data.name in ("imagenet", "imagenet_real") else None
        given = path if path is not None else beside
        train = None if given is None else _train(Path(given), given == path)
        if train is None:
            raise RequestError(
                f"data={data.name} is for evaluation, and data.path={data.path!r} has no folder "
                "train: give training images with calibrate.path=/data/imagenet/train, or "
                "calibrate.slice=validation"
            )
        _refuse_evaluation(train, None if data.path is None else _evaluation(Path(data.path)))
        return replace(
            data, name="imagenet", path=str(train), options={"split": "train"}, strict=False
        )
    if path is None:
        raise RequestError(
            f"data={data.name} is for evaluation and calibration never sees it: give a folder of "
            "training images with calibrate.path=/my/training/images"
        )
    _refuse_evaluation(Path(path), None if data.path is None else Path(data.path))
    if data.path is not None and data.options.get("classes") is None:
        _refuse_other_classes(Path(path), Path(data.path))
    return replace(data, path=path)


def _clips(data: DataSpec, path: str | None, split: str) -> DataSpec:
    """The training clips of a video data set; of one with a calibration split, that one if asked.

    path: a folder of training clips that lie elsewhere.
    """
    options = options_of(data)
    assert isinstance(options, ClipOptions)
    found = with_split(data, split if split in options.splits else "train")
    if path is None:
        return found
    if data.name != "kinetics":
        raise RequestError(f"calibrate.path={path!r} is not for data={data.name}: leave it null")
    return replace(found, options={**found.options, "train_path": path})


def _has_training_clips(data: DataSpec) -> bool:
    options = options_of(with_split(data, "train"))
    assert isinstance(options, KineticsOptions)
    return options.is_stored(data.path)


def _refuse_other_classes(train: Path, evaluation: Path) -> None:
    """RequestError unless both have the same class folders, which give the labels of both."""
    if not (train.is_dir() and evaluation.is_dir()):
        return  # the error comes when the folder is opened
    one, other = set(class_folders(train)), set(class_folders(evaluation))
    if (one ^ other) - set(synsets()):
        lone = min(one ^ other)
        where, lacks = (train, evaluation) if lone in one else (evaluation, train)
        raise RequestError(
            f"{where} has the class folder {lone!r} and {lacks} has not: give both the same "
            "folders, or the model's classes with data.classes=<file>"
        )


def _train(given: Path, itself: bool) -> Path | None:
    """`given/train` if it exists; else `given` if it came from calibrate.path (`itself`); else
    `train` beside a `given` named `val`; else None.
    """
    if (given / "train").is_dir():
        return given / "train"
    if itself:
        return given
    beside = given.parent / "train"
    return beside if given.name == "val" and beside.is_dir() else None


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
