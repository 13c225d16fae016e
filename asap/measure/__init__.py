"""Accuracy, multiply-accumulates and throughput of a method on a backbone."""
