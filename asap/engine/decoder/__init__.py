"""Runs a language model on one question: prefill, pruning, greedy decoding."""

from asap.engine.decoder.decoder import Decoder, Generated

__all__ = ["Decoder", "Generated"]
