"""The one exception that means: the request itself is wrong."""


class RequestError(Exception):
    """A request that cannot be carried out: bad config, missing data or weights.

    The message is one line that names the thing, its value and the remedy. Commands print it and
    exit 2.
    """


_ASIDE = ("Config search path:", "See https://hydra.cc", "object_type=")


def one_line(error: BaseException) -> str:
    """What an error says, on one line, without what only helps hydra's developers."""
    lines = [line.strip() for line in str(error).splitlines()]
    aside = [i for i, line in enumerate(lines) if line.startswith(_ASIDE)]
    said = [line for line in lines[: aside[0] if aside else None] if line]
    text = " ".join(" ".join(said).split())
    return text or type(error).__name__
