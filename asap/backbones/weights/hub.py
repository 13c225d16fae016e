"""A model's files from the Hugging Face hub: from its cache, else downloaded, without long waits.

A cached file is used without asking the network for a newer version: results do not change by
themselves, and a second run needs no network. Before a download, a single request with a short
timeout checks for the file, because the library retries for most of a minute before it reports that
there is no network. HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT have the same meaning as in the
library.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from asap.errors import RequestError, one_line

FILES = ("model.safetensors", "pytorch_model.bin")  # in order of preference
CONFIG = "config.json"
CONNECT_SECONDS = 5.0


def hub_file(name: str, repository: str, files: Sequence[str] = FILES) -> Path:
    """The local path of the first of `files` that a repository has; downloaded if not cached.

    repository: "owner/name" or "owner/name@revision". name: the backbone's name, for messages.
    Raises RequestError, which names the file, the place and a remedy.
    """
    repository, _, revision = repository.partition("@")
    try:
        found = [try_to_load_from_cache(repository, f, revision=revision or "main") for f in files]
    except HFValidationError as error:
        reason = one_line(error)
        raise RequestError(
            f"backbone name={name!r} is not a repository on the hub: {reason}: give "
            "hf-hub:owner/name"
        ) from None
    if cached := next((file for file in found if isinstance(file, str)), None):
        return Path(cached)
    if constants.is_offline_mode():
        raise _missing(name, repository, files, "HF_HUB_OFFLINE is set: no network is used")
    for file in files:
        try:
            return _fetched(repository, file, revision or "main")
        except LocalEntryNotFoundError as error:
            raise _missing(name, repository, files, _unreachable(error)) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # networks, proxies and disks fail in any way
            raise _missing(name, repository, files, _unreachable(error)) from None
    raise _missing(name, repository, files, f"{constants.ENDPOINT} has no such file")


def _fetched(repository: str, file: str, revision: str) -> Path:
    get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=CONNECT_SECONDS)
    return Path(hf_hub_download(repository, file, revision=revision, etag_timeout=CONNECT_SECONDS))


def _unreachable(error: Exception) -> str:
    reason = one_line(error, kind=True)[:120]
    return f"{constants.ENDPOINT} did not give it ({reason})"


def _missing(name: str, repository: str, files: Sequence[str], why: str) -> RequestError:
    file = files[0]
    give = f"backbone.weights=/path/to/{file}"
    if ":" in name:  # an hf-hub: name, so the weights need their config.json as well
        give = f"backbone.name=local-dir:/folder/with/{FILES[0]}/and/{CONFIG}"
    return RequestError(
        f"weights of {name!r}: {file} of {repository} is not in the hub cache "
        f"{constants.HF_HUB_CACHE}, and {why}. Get that file where there is a network and give "
        f"{give}, or copy a hub cache (HF_HOME)"
    )
