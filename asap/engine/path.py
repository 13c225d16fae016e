"""How a model's passes will run, known before its first batch."""

import logging

import torch

from asap.engine.checks import is_own
from asap.engine.device.decisions import named
from asap.engine.executor import ReducedViT

log = logging.getLogger(__name__)
_tried = set[str]()


@torch.no_grad()
def path_of(model: ReducedViT) -> str:
    """`model.path` as it will be, for a key.

    Whether decisions of a method of one's own can be recorded shows when they are: two passes over
    a blank image tell it, once for a method in a process.
    """
    method = model.method
    if is_own(method) and "graphs" in model.path and named(method) not in _tried:
        _tried.add(named(method))
        weight = next(model.backbone.parameters())
        try:
            blank = weight.new_zeros(1, 3, *model.adapter.backbone.patch_embed.img_size)
            for _ in range(2):  # the second one records
                model(blank, [0])
        except Exception as error:  # then the row fails with it when it is measured
            log.debug("%s failed on a blank image: %s", type(method).__name__, error)
    return model.path
