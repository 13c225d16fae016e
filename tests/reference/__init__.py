"""The oracle: slow, one image at a time, float64, written from the method descriptions alone.

Nothing here imports the engine, the methods or their tensor functions: what the two agree on, they
agree on for independent reasons. Read `vit.py` first, then the method's own file.
"""

import asap._compat  # noqa: F401  (before anything imports timm)
