"""Cache of the tables that were read last: a run's table and every figure need the same ones."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pandas as pd

MOST_BYTES = 256 * 2**20  # of all frames kept; a sweep of 225 settings does not stay in memory


class Recent:
    """Frames by file. A file that has changed is read again."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._frames: OrderedDict[tuple, tuple[pd.DataFrame, int]] = OrderedDict()

    def get(self, path: Path, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame of a file, from `read` if it is not kept. It must not be changed."""
        try:
            state = path.stat()
        except OSError:
            return read()  # raises the error that callers expect
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key][0]
        frame = read()
        self._frames[key] = frame, int(frame.memory_usage(deep=False).sum())
        while sum(size for _, size in self._frames.values()) > self.most_bytes:
            self._frames.popitem(last=False)
        return frame

    def clear(self) -> None:
        self._frames.clear()


RECENT = Recent()
