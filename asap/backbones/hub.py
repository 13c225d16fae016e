"""A model's file of weights from the hub: out of its cache, else fetched, and no long waiting.

A cached file is taken as it is, without asking the network whether there is a newer one: results
do not change by themselves, and nobody needs a network twice. Before a download one request, with
a short limit and no second try, asks for the file: the library's own retries take most of a minute
before they say that there is no network. HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT mean here what
they mean to the library.
"""

from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from asap.errors import RequestError

FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for
CONNECT_SECONDS = 5.0


def hub_file(name: str, repository: str) -> Path:
    """The weights file of a repository ("owner/name", or with "@revision") on this machine.

    `name` is what the user calls the model. Raises RequestError, naming file, place and remedy.
    """
    repository, _, revision = repository.partition("@")
    for file in FILES:
        cached = try_to_load_from_cache(repository, file, revision=revision or "main")
        if isinstance(cached, str):
            return Path(cached)
    if constants.is_offline_mode():
        raise _missing(name, repository, "HF_HUB_OFFLINE is set: no network is used")
    for file in FILES:
        try:
            return _fetched(repository, file, revision or "main")
        except LocalEntryNotFoundError as error:
            raise _missing(name, repository, _unreachable(error)) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # networks, proxies and disks fail in any way
            raise _missing(name, repository, _unreachable(error)) from None
    raise _missing(name, repository, f"{constants.ENDPOINT} has no such file")


def _fetched(repository: str, file: str, revision: str) -> Path:
    get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=CONNECT_SECONDS)
    return Path(hf_hub_download(repository, file, revision=revision, etag_timeout=CONNECT_SECONDS))


def _unreachable(error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return f"{constants.ENDPOINT} did not give it ({reason})"


def _missing(name: str, repository: str, why: str) -> RequestError:
    return RequestError(
        f"weights of {name!r}: {FILES[0]} of {repository} is not in the hub cache "
        f"{constants.HF_HUB_CACHE}, and {why}. Get that file where there is a network and give "
        f"backbone.weights=/path/to/{FILES[0]}, or copy a hub cache (HF_HOME)"
    )
