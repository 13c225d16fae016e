"""The optional library of vision-language models; nothing else of the package imports it."""

from packaging.version import Version

from asap.errors import RequestError, one_line

OLDEST, NEXT = Version("5.18"), Version("6")
REMEDY = "run `make setup-vlm`, or pip install 'asap-vit[vlm]'"


def require_transformers() -> None:
    """RequestError unless a transformers of the supported range can be imported."""
    try:
        import transformers
    except ImportError as error:
        reason = one_line(error)
        raise RequestError(
            f"vision-language models need transformers ({reason}): {REMEDY}"
        ) from None
    if not OLDEST <= Version(transformers.__version__) < NEXT:
        raise RequestError(
            f"transformers {transformers.__version__} is installed, and vision-language models "
            f"need {OLDEST} or newer, below {NEXT}: {REMEDY}"
        )
