"""The one exception that means: the request itself is wrong."""


class RequestError(Exception):
    """A request that cannot be carried out: bad config, missing data or weights.

    The message is one line that names the thing, its value and the remedy. Commands print it and
    exit 2.
    """
