"""Runs a language model on one question: prefill, pruning, greedy decoding."""

from asap.engine.decoder.decoder import Decoder, Generated, Prefilled

__all__ = ["Decoder", "Generated", "Prefilled"]
