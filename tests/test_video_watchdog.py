"""A decoder that hangs or crashes costs its clip, not the run."""

import multiprocessing
import os
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import clips
import numpy as np
import pytest

from asap.data.video import watchdog
from asap.data.video.sampling import Views
from asap.data.video.unreadable import UnreadableClip
from asap.data.video.watchdog import read_clip

pytestmark = pytest.mark.process
VIEWS = Views(frames=4)
# Decoders in the place of decord: the child process finds the first one on the path.
LOG = "class logging:\n    ERROR = 16\n    set_level = print\n"
SLEEPS = LOG + "import time\nVideoReader = lambda *args, **more: time.sleep(1e6)\n"
HOLDS = LOG + "import ctypes\nVideoReader = lambda *_, **more: ctypes.PyDLL(None).sleep(10**6)\n"
ENDS = LOG + "import os\nVideoReader = lambda *args, **more: os._exit(7)\n"
CRASHES = LOG + "import os\nVideoReader = lambda *args, **more: os.abort()\n"
ABSENT = "raise ImportError('no build of it here')\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clips.made(tmp_path_factory.mktemp("clips"), "h264")


@pytest.fixture
def decord(tmp_path, monkeypatch):
    """Puts a module of this text in the place of decord, for children that start from now on."""

    def put(text):
        (tmp_path / "decord.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        watchdog.stop()

    yield put
    watchdog.stop()


def kind_of(file, seconds=60.0, decoder="auto"):
    with pytest.raises(UnreadableClip) as caught:
        read_clip(file, VIEWS, decoder, seconds)
    return str(caught.value)


@pytest.mark.parametrize("hang", [SLEEPS, HOLDS], ids=["sleeps", "holds the interpreter"])
def test_a_decoder_that_sleeps_for_ever_is_ended(hang, clip, decord):
    decord(hang)
    assert read_clip(clip, VIEWS, "pyav").decoder == "pyav"  # the child has started
    child = watchdog.pid()
    assert kind_of(clip, seconds=1.0) == "timeout: not read within 1 s"
    assert not _runs(child)
    # The next clip is read, by the next child.
    found = read_clip(clip, VIEWS, "pyav")
    assert clips.numbers_in(found.frames) == VIEWS.indices(90)[0]


def test_a_decoder_that_ends_its_process_costs_one_clip(clip, decord):
    decord(ENDS)
    assert kind_of(clip) == "undecodable: the decoder crashes (exit code 7)"
    decord(CRASHES)
    assert kind_of(clip) == "undecodable: the decoder crashes (exit code -6)"
    assert read_clip(clip, VIEWS, "pyav").decoder == "pyav"


def test_a_child_that_died_between_two_clips_is_replaced(clip):
    read_clip(clip, VIEWS)
    os.kill(watchdog.pid(), 9)
    assert read_clip(clip, VIEWS).decoder == "decord"


def test_without_decord_pyav_reads_the_same(clip, decord):
    usual = read_clip(clip, VIEWS)
    decord(ABSENT)
    found = read_clip(clip, VIEWS)
    assert (usual.decoder, found.decoder) == ("decord", "pyav")
    np.testing.assert_array_equal(found.frames, usual.frames)
    assert "it is not installed here" in kind_of(clip, decoder="decord")


def test_a_child_that_cannot_start_is_a_fault_and_not_a_damaged_clip(clip, tmp_path, monkeypatch):
    (tmp_path / "av.py").write_text("raise ImportError('libav is too old')\n")
    monkeypatch.syspath_prepend(tmp_path)
    watchdog.stop()
    with pytest.raises(RuntimeError, match="libav is too old"):
        read_clip(clip, VIEWS)


def test_content_in_memory_and_relative_paths(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    for file in (Path(clip.name), BytesIO(clip.read_bytes())):
        assert clips.numbers_in(read_clip(file, VIEWS).frames) == VIEWS.indices(90)[0]
    views = Views(frames=2, clips=2, sampling="dense", stride=50)
    found = read_clip(clip, views)
    assert [[clips.number_in(found.frames[i]) for i in one] for one in found.clips] == (
        views.indices(90)
    )
    with pytest.raises(UnreadableClip, match="short: 90 frames, and 401 are needed"):
        read_clip(clip, Views(frames=5, sampling="dense", stride=100))


PARENT = """
import sys, time, types
from pathlib import Path
sys.modules["asap"] = types.ModuleType("asap")  # without torch, as in the child
sys.modules["asap"].__path__ = [sys.argv[3]]
from asap.data.video import watchdog
from asap.data.video.sampling import Views
watchdog.read_clip(Path(sys.argv[1]), Views(), "pyav")
print(watchdog.pid(), flush=True)
watchdog.read_clip(Path(sys.argv[1]), Views(), sys.argv[2], 600.0)
time.sleep(600)
"""


@pytest.mark.parametrize("doing", ["waits", "hangs"])
def test_a_child_ends_with_its_parent(doing, clip, tmp_path):
    (tmp_path / "decord.py").write_text(SLEEPS)
    decoder = "pyav" if doing == "waits" else "decord"
    root = Path(__file__).resolve().parents[1]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(clip), decoder, str(root / "asap")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while _runs(child) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _runs(child)


def _runs(pid):
    """Nobody may wait for a process whose parent is gone, so that it may stay as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loaders_that_do_not_fork_read_too(method, clip):
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.apply(read_clip, (clip, VIEWS))
    assert clips.numbers_in(found.frames) == VIEWS.indices(90)[0]
