"""The optional library of vision-language models; nothing else of the package imports it."""

import re

from asap.errors import RequestError, one_line

OLDEST, NEXT = (5, 17), (6, 0)  # releases that this project is written for: from, and below
REMEDY = "run `make setup-vlm`, or pip install 'asap-vit[vlm]'"


def require_transformers() -> None:
    """RequestError unless a transformers of the supported range can be imported."""
    try:
        import transformers
    except ImportError as error:
        reason = one_line(error)
        raise RequestError(f"LLaVA needs transformers ({reason}): {REMEDY}") from None
    major, minor = (int(n) for n in re.findall(r"\d+", transformers.__version__)[:2])
    if not OLDEST <= (major, minor) < NEXT:
        raise RequestError(
            f"transformers {transformers.__version__} is installed, and LLaVA needs 5.17 or newer, "
            f"below 6: {REMEDY}"
        )
