"""The interface of a task: its columns, how outputs become answers, and how answers are scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
from jaxtyping import Bool
from torch import Tensor

from asap.data.base import DataSet, Sample


class Task(ABC):
    """The question that the examples of a data set are asked, and how answers are scored.

    `columns`: those of its answers beside the core ones, `ANSWER_COLUMNS`. A new quantity of an
    example is declared here, given by `answered` and `unread`, and summed up by `score`.
    """

    name: ClassVar[str]
    examples: ClassVar[str] = "examples"  # what they are called, for people
    columns: ClassVar[tuple[pa.Field, ...]] = ()

    @classmethod
    def of(cls, data: DataSet, head: Any = None) -> "Task":
        """The task with what the data set says of it; head: of a task whose outputs are features or
        visual rows, None where only its columns are asked for.
        """
        return cls()

    @abstractmethod
    def answered(
        self, samples: Sequence[Sample], outputs: Any, traces: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The columns of examples that were evaluated, from the model's `outputs`: a tensor
        (images, ...), of questions the `VisualOutputs`.

        The examples of a data set have as many images each. traces: values of the images by name,
        (images, ...) each on the CPU: `assignment`, the final token of each patch, and all columns
        of the traces.

        A task whose examples can fail alone also gives the column `error`, None for those that did
        not: a failed example is recorded like one that could not be read, without a trace.
        """

    @abstractmethod
    def right(self, samples: Sequence[Sample], outputs: Any) -> Bool[Tensor, " b"]:
        """Whether each of the examples, all of as many images, is answered right; for a search
        among settings. The samples need no images.
        """

    @abstractmethod
    def unread(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """The columns of examples that could not be read."""

    @abstractmethod
    def score(self, answers: pd.DataFrame, clustered: bool) -> dict[str, Any]:
        """The fields of a record that come from the answers, those of unread examples among them.

        clustered: examples of one `cluster` are not independent.
        """
