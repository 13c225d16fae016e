"""Training-free token reduction for Vision Transformers: methods, engine, measurement."""

import asap.cli.start  # first: Ctrl-C may come while the others are imported

with asap.cli.start.without_collections():
    # isort: split
    import asap._compat  # first: timm imports torchvision
    from asap import methods
    from asap.backbones.weights.load import load_backbone
    from asap.engine.executor import ReducedViT
    from asap.errors import RequestError

__version__ = "0.1.0"
__all__ = ["ReducedViT", "RequestError", "load_backbone", "methods"]
