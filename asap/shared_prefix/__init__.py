"""Many settings of ASAP over one shared dense trunk: prefix memoisation, not an algorithm.

Up to the block where an image stops, nothing of it depends on tau, on K, or on what is done there,
and its column masses depend on alpha alone. So a batch runs through the dense blocks once, every
setting says where its images leave, and only the rests of their ways are run, equal ones once.
Results are those of separate runs: bitwise on CPU, to rounding on CUDA. Never for timing.

Held at once, for a batch of B images: one dense batch, the head-averaged maps of its blocks (as in
an ordinary run), P for every alpha (B N^2 numbers each), `MOST_COPIES` batches of tokens on their
way out, and logits and patch places of every distinct rest.
"""

from asap.shared_prefix.answers import Answers
from asap.shared_prefix.dense_pass import SharedTrunk
from asap.shared_prefix.rules import shareable

__all__ = ["Answers", "SharedTrunk", "shareable"]
