"""From the task that a data set names to the task."""

from typing import Any

from asap.data.base import DataSet
from asap.errors import RequestError
from asap.tasks.base import Task
from asap.tasks.classification import Classification
from asap.tasks.questions import Questions
from asap.tasks.video import Video

TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (Classification, Video, Questions)}


def task_of(data: DataSet, head: Any = None) -> Task:
    """What is asked of the examples of a data set; RequestError on an unknown task.

    head: what turns the model's outputs into answers: the `FrameHead` of a video, the `Answerer` of
    questions; None where only the columns of the answers are asked for.
    """
    if data.task not in TASKS:
        known = ", ".join(TASKS)
        raise RequestError(f"data={data.name} has the task {data.task!r}: use one of {known}")
    return TASKS[data.task].of(data, head)
