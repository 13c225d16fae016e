"""The interface of a measurement: a file that decides if it is wanted, and makes rows' records."""

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
        """True if a run asks for it.

        One without a field in `MeasureSpec` is asked for with `+measure.also.<kind>=...`.
        """
        ...

    def refuse(self, spec: RunSpec) -> None:
        """RequestError if it will not be possible; called before anything is measured."""
        ...

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        """The rows, in their order, each with its record of the kind or the reason why it has none.

        Records that are not in the store are made. A row that is not open stays as it is. Raises
        RequestError for a request that cannot be carried out.
        """
        ...


def wanted_of(measurements: Sequence[Measurement], spec: RunSpec) -> list[Measurement]:
    """The measurements that a run asks for, in order. RequestError if one is not possible."""
    names = [measurement.kind.name for measurement in measurements]
    if unknown := sorted(spec.measure.also.keys() - set(names)):
        raise RequestError(
            f"measure.also.{unknown[0]} is no measurement: use one of {', '.join(names)}"
        )
    wanted = [measurement for measurement in measurements if measurement.wanted(spec)]
    for measurement in wanted:
        measurement.refuse(spec)
    return wanted
