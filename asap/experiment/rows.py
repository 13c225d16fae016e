"""The rows of a run, each an outcome from the start: a step takes rows and gives rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from asap.measure.fitting import pruner_of
from asap.measure.record_parts import config_of
from asap.methods import Method, build
from asap.methods.language.base import Pruner
from asap.report.result import Result, unmeasured
from asap.spec.run_spec import MethodSpec, RunSpec


@dataclass(frozen=True)
class Row:
    """One row of a run.

    spec: the run under which it is measured; method: with the options that are known so far;
    result: its records, or the reason why one is missing; failed: the reason is an error, and the
    next run tries again (else the row is not possible).
    """

    spec: RunSpec
    method: MethodSpec
    result: Result
    failed: bool = False

    @classmethod
    def of(cls, spec: RunSpec, method: MethodSpec) -> "Row":
        """A row without any record yet."""
        return cls(spec, method, unmeasured(spec, method))

    @property
    def open(self) -> bool:
        """True if it can be measured: nothing has gone wrong so far."""
        return self.result.reason is None

    @cached_property
    def built(self) -> Method:
        """The vision method with its options."""
        return build(self.method.name, self.method.options)

    @cached_property
    def pruner(self) -> Pruner | None:
        """The method of the language stage, None if there is none."""
        return pruner_of(self.method)

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.yaml beside its record."""
        return config_of(self.spec, self.method)

    def begun(self) -> "Row":
        """The row with everything that tables show of it before it is measured."""
        pruned = self.pruner is not None and self.pruner.extension
        result = unmeasured(self.spec, self.method, ours=self.built.extension or pruned)
        return replace(self, result=replace(result, config=self.config))

    def without(self, reason: str, failed: bool = False) -> "Row":
        """The row with the reason why a record is missing."""
        return replace(self, result=replace(self.result, reason=reason), failed=failed)

    def with_records(self, **records: Mapping[str, Any] | None) -> "Row":
        """The row with records of these kinds."""
        return replace(self, result=self.result.with_records(**records))


def among(
    rows: list[Row], chosen: Callable[[Row], bool], step: Callable[[list[Row]], list[Row]]
) -> list[Row]:
    """The rows after a step on those that are `chosen`, all together; the others are unchanged."""
    done = iter(step([row for row in rows if chosen(row)]))
    return [next(done) if chosen(row) else row for row in rows]
