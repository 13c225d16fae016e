"""A job: one spec of a command line, and its outcome. A multirun has several jobs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hydra.core.utils import env_override

from asap.errors import RequestError, one_line
from asap.report.result import Result
from asap.spec.labels import labelled
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
SET_APART = ("method.", "budget=", "calibrate.")  # options that labels of a multirun show


@dataclass
class Job:
    """A spec and its outcome.

    overrides: what was typed for this job of a multirun; several: it is one of a multirun;
    environment: variables that Hydra sets for it. ended: it ended, with or without success;
    refused: the request is wrong; failed: the reasons, each with the name of its row, or of the
    refusal; spec: as requested, then as measured; results: of its rows, in the order of its table.
    """

    number: int = 0
    overrides: list[str] = field(default_factory=list)
    several: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    refused: bool = False
    failed: list[str] = field(default_factory=list)
    spec: RunSpec | None = None
    results: list[Result] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"job {self.number} ({' '.join(self.overrides)})"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Do a part of the job's work.

        A refused request is logged in one line. Any other error ends the job; it is raised if this
        is the only job.
        """
        try:
            with env_override(self.environment):
                yield
        except RequestError as error:
            log.error("error: %s", error)
            self.refused = True
            self.failed.append(str(error))
        except Exception as error:  # one job of several must not cost the others
            if not self.several:
                raise
            log.error("job %d", self.number, exc_info=error)  # the other jobs go on
            self.failed.append(f"{self.name}: {one_line(error, kind=True)}")

    def labelled(self, results: list[Result]) -> list[Result]:
        """Results with the options in their labels that were given to this job."""
        given = [o.removeprefix("method.") for o in self.overrides if o.startswith(SET_APART)]
        options = [(name, value) for name, _, value in (o.partition("=") for o in given)]
        return [r if r.is_dense else replace(r, label=labelled(r.label, options)) for r in results]
