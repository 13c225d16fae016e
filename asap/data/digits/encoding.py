"""Encodes rendered frames as H.264, so that clips are read by a real decoder.

libx264 with its usual settings writes other bytes on every run, even on one thread. With the preset
ultrafast, a constant quantiser and one thread, equal frames give equal bytes (tested).
"""

from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8

_SETTINGS: dict[str, Any] = {
    "codec": "libx264", "container": "mp4", "pixels": "yuv420p", "rate": 16, "threads": 1,
    "options": {"preset": "ultrafast", "qp": "18"},
}  # fmt: skip


def encoder() -> dict[str, Any]:
    """The settings and the version of what encodes, as plain data."""
    import av  # takes a moment, and few runs need it

    return {**_SETTINGS, "av": av.__version__, "libavcodec": av.library_versions["libavcodec"]}


def encoded(frames: UInt8[np.ndarray, "frames height width 3"]) -> bytes:
    """The content of an MP4 file with these RGB frames. Height and width are even."""
    import av

    file = BytesIO()
    with av.open(file, "w", format=_SETTINGS["container"]) as container:
        stream = container.add_stream(_SETTINGS["codec"], rate=_SETTINGS["rate"])
        _, stream.height, stream.width, _ = frames.shape
        stream.pix_fmt = _SETTINGS["pixels"]
        stream.options = _SETTINGS["options"]
        stream.thread_count = _SETTINGS["threads"]
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
