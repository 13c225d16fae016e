"""Many settings of a method over one shared dense prefix: memoisation, not an algorithm.

Until a setting reduces an image, nothing of the image depends on the setting. So a batch runs
through the dense blocks once, every setting says where its images leave (`Method.observe`) and as
what (`Method.reduce`), and only the blocks after that are run, equal ones once. Which settings may
share, and what they have in common, they declare themselves (`Method.sharing`). Results are those
of separate runs: bitwise on CPU, to rounding on CUDA. Never for timing.

Held at once, for a batch of B images: one dense batch, the maps of its blocks (as in an ordinary
run), for ASAP P for every alpha (B N^2 numbers each), `MOST_COPIES` batches of tokens on their way
out, and logits and patch places of every distinct suffix.

`forecast.py` uses the same fact for costs alone: one pass that reduces nothing says what every
setting would cost.
"""

from asap.shared_prefix.answers import Answers
from asap.shared_prefix.dense_pass import SharedPrefix

__all__ = ["Answers", "SharedPrefix"]
