"""Rows that need a separate run: methods with their own trained weights, and the baseline on the
images that calibration took.
"""

from dataclasses import replace
from pathlib import Path

from asap.errors import RequestError
from asap.experiment.rows import Row
from asap.spec.run_spec import MethodSpec, RunSpec


def refuse_lost_checkpoints(spec: RunSpec) -> None:
    """RequestError if the checkpoint file of a row does not exist.

    Checked before anything is measured, so that it does not come after all other rows.
    """
    for method in spec.rows:
        if method.needs is None or method.file is None:
            continue
        if not Path(method.file).is_file():
            raise RequestError(
                f"{method.label}: the checkpoint file {method.file} does not exist: give "
                f"{method.needs}"
            )


def with_own_checkpoint(spec: RunSpec, method: MethodSpec) -> RunSpec:
    """The run of this row alone, with its checkpoint as weights of the method and the backbone."""
    # Digest, averages and published accuracy in the spec are those of the other rows' weights.
    backbone = replace(spec.backbone, weights=method.file, sha256=None, ema=None)
    backbone = replace(backbone, top1=None, source=None)
    own = method.with_options({"weights": method.file})
    return replace(spec, backbone=backbone, rows=(own,))


def on_left_out_images(row: Row) -> RunSpec | None:
    """The run of a baseline on the images that calibration took.

    With them its accuracy is that of all images, which can be compared with the published one.
    None if no images are missing, or no accuracy is published. No setting depends on it.
    """
    spec = row.spec
    published = spec.backbone.top1 is not None and spec.backbone.weights != "random"
    if not published or spec.data.part != "rest" or spec.limit is not None:
        return None
    measure = replace(spec.measure, throughput=False, also={})
    data = replace(spec.data, part="slice")
    return replace(spec, rows=(row.method,), data=data, measure=measure)
