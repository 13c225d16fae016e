"""CircularEval (MMBench, Liu et al. 2023): the options of a question are asked in every order.

A row's index is that of its question plus a million for each turn of the options. A question counts
as right if all of its rows are.
"""

import numpy as np
from jaxtyping import Int

TURN = 1_000_000


def question(index: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """The question of each row."""
    return index % TURN
