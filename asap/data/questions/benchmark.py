"""What a benchmark is, beside its questions: its name, and how its number is found."""

from dataclasses import dataclass

from asap.data.base import DataSet


@dataclass(frozen=True)
class Benchmark:
    """A published set of questions.

    split: whose questions these are, of those that the benchmark has. metric: its number, in words.
    rule: how the number is found, one of `asap/tasks/benchmark_score.py`. n_expected: questions of
    the complete split, as published tables count them; None: not known. answers_public: False where
    a server has the right answers. max_new_tokens: at which LLaVA's script cuts an answer.
    """

    name: str
    split: str
    metric: str
    rule: str
    n_expected: int | None = None
    answers_public: bool = True
    max_new_tokens: int = 128

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What is hashed with the right answers."""
        return self.name, self.split, self.rule, self.max_new_tokens


def benchmark_of(data: DataSet) -> Benchmark | None:
    """The benchmark whose questions these are, all or some of them; None for other data."""
    return getattr(data, "benchmark", None)
