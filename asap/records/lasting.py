"""Errors of examples that every later try would meet again, such as a prompt that is too long."""

import pyarrow as pa
import pyarrow.compute as pc

LASTING = "cannot be answered: "  # how they begin; all others may be gone in the next run


def worth_another_try(answers: pa.Table) -> list[int]:
    """The positions of examples that failed, except those whose error lasts."""
    failed = answers.filter(pc.field("error").is_valid())
    found = zip(failed["index"].to_pylist(), failed["error"].to_pylist(), strict=True)
    return [index for index, error in found if not error.startswith(LASTING)]
