"""Refuses runs whose outputs, the backbone's or a head's, are not classes of the labels."""

from torch import nn

from asap.backbones.heads import CLASSIFIER, n_outputs, without_classes
from asap.data.base import DataSet
from asap.errors import RequestError
from asap.spec.run_spec import LLAVA, RunSpec
from asap.tasks.questions import Questions
from asap.tasks.video import Video


def refuse_other_outputs(spec: RunSpec, model: nn.Module, data: DataSet) -> None:
    """RequestError unless the outputs are classes of the labels, where accuracy is measured.

    Those of a head are compared where its file is read. model: the backbone as it was loaded.
    """
    if (data.task == Questions.name) != spec.answers:
        _refuse_no_answers(spec, data)
    if spec.answers:
        return
    clips = data.task == Video.name
    if clips or spec.head is not None:
        _refuse_other_task(spec, data, clips)
        return
    name = spec.backbone.name
    if features := without_classes(model):
        if spec.measure.accuracy:  # throughput needs no labels
            raise RequestError(
                f"backbone {name!r} has no class head for the labels of data={data.name}: "
                f"{features}. Use weights with one (backbone=timm backbone.name={CLASSIFIER}), "
                "or measure=throughput"
            )
        return
    outputs = n_outputs(model)
    if outputs is not None and outputs != data.n_classes:
        other = " or give the model's classes in order with data.classes=<file>"
        other = other if data.name == "folder" else ""
        if spec.backbone.weights == "random":
            other = f" (random ones: backbone.model_args.num_classes={data.n_classes}){other}"
        raise RequestError(
            f"backbone {name!r} has {outputs} classes and the data set {data.name!r} has "
            f"{data.n_classes}: use weights trained for these classes{other}"
        )


def _refuse_no_answers(spec: RunSpec, data: DataSet) -> None:
    """RequestError for questions and a model that cannot answer, or the reverse."""
    if spec.answers:
        raise RequestError(
            f"backbone={LLAVA} answers questions, and data={data.name} has none: use "
            "data=digits_qa, data=questions with data.path=<file>, or another backbone"
        )
    raise RequestError(
        f"data={data.name} has questions, and backbone {spec.backbone.name!r} answers none: add "
        "task=vlm"
    )


def _refuse_other_task(spec: RunSpec, data: DataSet, clips: bool) -> None:
    """RequestError for clips without a head, and for images with one."""
    if not clips:
        raise RequestError(
            f"head is for clips, and data={data.name} has images: leave head= out, or choose an "
            "experiment without one"
        )
    if spec.head is None and spec.measure.accuracy:
        raise RequestError(
            f"data={data.name} has clips, whose classes a head finds in the features of their "
            "frames: add head=attention, or use measure=throughput"
        )
