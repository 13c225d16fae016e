"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25
    torchrun --nproc-per-node=8 -m asap.run experiment=imagenet_deit_base data.path=/data/imagenet

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images, as
is a row with a budget of its own (macs_pct).
Exit codes: 0 done; 1 some rows failed (listed; the others are recorded); 2 the request is wrong.
"""

from functools import partial

from asap.cli.command import command
from asap.cli.multirun_tables import show_jobs
from asap.experiment.pipeline import evaluate
from asap.measure.in_memory import InMemory


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    memory = InMemory()
    command(partial(evaluate, memory=memory), __doc__, partial(show_jobs, memory=memory))
