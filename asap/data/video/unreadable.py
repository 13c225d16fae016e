"""Why a clip cannot be used."""

MISSING, UNDECODABLE, SHORT = "missing", "undecodable", "short"
TIMEOUT, NO_VIDEO = "timeout", "no video stream"


class UnreadableClip(Exception):
    """A clip that cannot be used: "<kind>: <reason>", one line, without the path of the clip."""

    def __init__(self, kind: str, reason: str):
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason = kind, reason

    def __reduce__(self) -> tuple:
        return type(self), (self.kind, self.reason)  # it is sent between processes
