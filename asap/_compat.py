"""What other libraries need before they are imported: torchvision's operators, Arrow's memory.

Some torchvision wheels are built against CUDA torch only; on such a pair `import torchvision` (and
so `import timm`) raises "operator torchvision::nms does not exist". Their Python parts work once
the two operator schemas that torchvision patches at import time exist. Only tried after the real
import failed: a library namespace can be defined once, so doing it first would break a working
build.

Arrow takes memory where numpy and torch do. Its own allocator keeps what is given back: writing a
megabyte of predictions would cost a process twelve.
"""

import os
import sys

_definitions = []  # keeps the torch.library objects alive


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operator schemas if that is all that is wrong."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        import torchvision  # noqa: F401


def _declare_operators() -> None:
    import torch

    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _definitions.append(library)


os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
ensure_torchvision()
