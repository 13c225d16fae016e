"""Progress of long tasks, on a terminal or in the log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(label: str, total: int, what: str = "images") -> Iterator[tqdm]:
    """A progress bar on a terminal, one line where there is none. what: is counted."""
    unit = {"images": "img"}.get(what, f" {what}")
    with tqdm(total=total, desc=f"{label:<24}", unit=unit, disable=None, smoothing=0.1) as bar:
        yield bar
    if bar.disable:
        logging.getLogger("asap").info("%s: %d %s", label, total, what)
