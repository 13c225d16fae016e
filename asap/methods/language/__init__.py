"""Pruners: methods of the stage "language", which drop visual rows inside the language model."""
