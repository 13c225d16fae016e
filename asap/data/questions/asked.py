"""From questions with the paths of their pictures to a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asap.data.base import DataSet
from asap.data.options import Opening
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.question_set import Pictures, Question, QuestionSet
from asap.errors import RequestError, counted
from asap.spec.run_spec import DataSpec


@dataclass(frozen=True)
class Asked:
    """A question. image: the path of its picture below the folder of pictures; see `Question`."""

    id: str
    image: str
    text: str
    kind: str
    answers: tuple[str, ...]
    category: str
    subset: str


def question_set(
    asked: Sequence[Asked],
    pictures_at: Callable[[Sequence[str]], Pictures],
    opening: Opening,
    called: str,
    benchmark: Benchmark | None = None,
) -> DataSet:
    """The data set of these questions, at most `opening.limit` of them.

    pictures_at: the pictures of paths, each of which is given once; called: what the questions are
    of, for people.
    """
    pictures = pictures_at(list(dict.fromkeys(one.image for one in asked)))
    place = {path: i for i, path in enumerate(pictures.paths)}
    questions = [
        Question(o.id, place[o.image], o.text, o.kind, o.answers, o.category, o.subset)
        for o in asked
    ]
    found = QuestionSet(
        questions,
        pictures,
        opening.transform,
        opening.patch_grid,
        name=opening.spec.name,
        about=f"{called}, {counted(len(questions), 'question')} about "
        f"{counted(len(place), 'picture')}",
    )
    found.title, found.index = opening.spec.title, opening.index
    found.benchmark = benchmark
    return found.first(opening.limit)


def refuse_cache(spec: DataSpec) -> None:
    """RequestError for a cache of crops: of questions it would save nothing."""
    if spec.cache is not None:
        raise RequestError(
            f"data.cache={spec.cache!r} is not for data={spec.name}: leave it null, a picture is "
            "decoded once for all of its questions"
        )
