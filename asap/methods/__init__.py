"""The methods. A config's `name` is a module of this package, or the dotted path of another."""

from asap.methods.asap import Asap
from asap.methods.ats import ATS
from asap.methods.base import (
    Anatomy,
    Attention,
    Column,
    Decision,
    Method,
    Needs,
    Observation,
    Site,
)
from asap.methods.dense import Dense
from asap.methods.dynamicvit import DynamicViT
from asap.methods.evit import EViT
from asap.methods.ppt import PPT
from asap.methods.prunesid import PruneSID
from asap.methods.random_drop import RandomDrop
from asap.methods.registry import build, find
from asap.methods.tome import ToMe
from asap.methods.visionzip import VisionZip
from asap.methods.vispruner import VisPruner
from asap.methods.zero_tprune import ZeroTPrune

__all__ = [
    "ATS", "PPT", "Anatomy", "Asap", "Attention", "Column", "Decision", "Dense", "DynamicViT",
    "EViT", "Method", "Needs", "Observation", "PruneSID", "RandomDrop", "Site", "ToMe", "VisPruner",
    "VisionZip", "ZeroTPrune", "build", "find",
]  # fmt: skip
