"""Commands in processes forked from the tests', which have imported everything: a start is free."""

import logging
import multiprocessing
import os
import runpy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code and what it wrote."""

    returncode: int | None
    stdout: str
    stderr: str


def run(*arguments: str, module: str = "asap.run", **environment: str) -> Done:
    """`python -m <module> <arguments>`, with variables of the environment beside those here."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("out", "err")]

        def child() -> None:
            for number, path in enumerate(paths, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ.update(environment)
            logging.getLogger("asap").handlers.clear()
            GlobalHydra.instance().clear()
            torch.set_num_threads(1)
            sys.argv = [module, *arguments]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(300)
        assert process.exitcode is not None, "the command hangs"
        out, err = (path.read_text("utf-8") for path in paths)
        return Done(process.exitcode, out, err)
