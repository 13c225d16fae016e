"""Mirror a finished result to TensorBoard. The records on disk are the truth; this may fail.

Called after the record is on disk. Any failure here is one warning, never an exception.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asap.errors import one_line
from asap.report.result import Result
from asap.report.scalars import curves, scalars, training_curves

log = logging.getLogger(__name__)


def log_result(result: Result, config: Mapping[str, Any], directory: Path) -> bool:
    """Write `directory/<record key>`: scalars, curves by block or by epoch, config as text.

    Replaces earlier files of the same record. True if it was written, False after a warning.
    """
    try:
        _log(result, config, directory)
    except Exception as error:  # a mirror never costs a result, whatever fails in it
        reason = one_line(error, kind=True)
        log.warning("TensorBoard: %s was not logged: %s", result.label, reason)
        return False
    return True


def _log(result: Result, config: Mapping[str, Any], directory: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    if result.key is None:
        raise ValueError("there is no record")
    folder = directory / result.key
    stale = list(folder.glob("events.out.tfevents.*"))
    with SummaryWriter(log_dir=str(folder)) as writer:
        writer.add_text("label", f"{result.label}, {result.backbone}")
        writer.add_text("config", f"```\n{json.dumps(dict(config), indent=2, default=str)}\n```")
        for name, value in scalars(result).items():
            writer.add_scalar(f"summary/{name}", value)
        for axis, found in (("block", curves(result)), ("epoch", training_curves(result))):
            for name, points in found.items():
                for place, value in points.items():
                    writer.add_scalar(f"{axis}/{name}", value, global_step=place)
    for file in stale:
        file.unlink()
