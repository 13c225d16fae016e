"""ASAP: the method, its options, and the parts it is made of."""

from asap.methods.asap.method import Asap

__all__ = ["Asap"]
