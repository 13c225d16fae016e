"""Make torchvision importable next to a CPU build of torch that lacks its operators.

Some torchvision wheels are built against CUDA torch only; on such a pair `import torchvision` (and
so `import timm`) raises "operator torchvision::nms does not exist". Their Python parts work once
the two operator schemas that torchvision patches at import time exist. Only tried after the real
import failed: a library namespace can be defined once, so doing it first would break a working
build.
"""

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


ensure_torchvision()
