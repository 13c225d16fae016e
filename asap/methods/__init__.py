"""The methods. A config's `name` is a module of this package, or a dotted path to one's own file."""

from asap.methods.asap import Asap
from asap.methods.ats import ATS
from asap.methods.base import Anatomy, Decision, Method, Site
from asap.methods.dense import Dense
from asap.methods.find import build, find
from asap.methods.random_drop import RandomDrop
from asap.methods.tome import ToMe
from asap.methods.zero_tprune import ZeroTPrune

__all__ = [
    "ATS", "Anatomy", "Asap", "Decision", "Dense", "Method", "RandomDrop", "Site", "ToMe",
    "ZeroTPrune", "build", "find",
]  # fmt: skip
