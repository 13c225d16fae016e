"""What a measurement is: one file that says when it is wanted and gives rows their records."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from asap.errors import RequestError
from asap.experiment.rows import Row
from asap.measure.session import Session
from asap.records.kinds import Kind
from asap.spec.run_spec import RunSpec


@runtime_checkable
class Measurement(Protocol):
    """A measurement of a run's rows, listed in `pipeline.MEASUREMENTS`.

    `kind`: the kind of its records. Results, the CSV and the page of all records take any kind.
    """

    @property
    def kind(self) -> Kind: ...

    def wanted(self, spec: RunSpec) -> bool:
        """Whether a run asks for it; one that `MeasureSpec` has no field for is asked for with
        `+measure.also.<kind>=...`.
        """
        ...

    def refuse(self, spec: RunSpec) -> None:
        """RequestError for what could not be measured, before anything is."""
        ...

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        """The rows, in their order, with their records of the kind, each made where it is not in
        the store, or with the reason why it is missing. A row that is not open stays as it is.

        Raises RequestError for a request that cannot be carried out.
        """
        ...


def wanted_of(measurements: Sequence[Measurement], spec: RunSpec) -> list[Measurement]:
    """Those that a run asks for, in their order, all of them possible; else RequestError."""
    names = [measurement.kind.name for measurement in measurements]
    if unknown := sorted(spec.measure.also.keys() - set(names)):
        raise RequestError(
            f"measure.also.{unknown[0]} is no measurement: use one of {', '.join(names)}"
        )
    wanted = [measurement for measurement in measurements if measurement.wanted(spec)]
    for measurement in wanted:
        measurement.refuse(spec)
    return wanted
