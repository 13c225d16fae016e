"""Many settings of a method over one shared dense prefix: memoisation, not an algorithm.

Until a setting reduces an image, the image does not depend on the setting. So a batch runs through
the dense blocks once. Every setting decides where its images leave the prefix (`Method.observe`)
and with which tokens (`Method.reduce`), and only the blocks after that are run, equal ones once.
`Method.sharing` declares which settings may share, and what they have in common. Results are those
of separate runs: bitwise on CPU, to rounding on CUDA. Never for timing.

Memory, for a batch of B images: one dense batch, the maps of its blocks (as in an ordinary run),
for ASAP P for every alpha (B N^2 numbers each), `MOST_COPIES` batches of tokens that leave the
prefix, and logits and patch places of every distinct suffix.

`forecast.py` uses the same fact for costs alone: one pass that reduces nothing gives the cost of
every setting.
"""

from asap.shared_prefix.answers import Answers
from asap.shared_prefix.dense_pass import SharedPrefix

__all__ = ["Answers", "SharedPrefix"]
