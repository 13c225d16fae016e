"""The tokenizer and the chat template of a checkpoint, and the frame of its prompts."""

from pathlib import Path
from typing import Any

from asap.backbones.llava.prompt import PromptFrame
from asap.backbones.llava.settings import content_digest, ends_of, read_json
from asap.errors import RequestError, one_line

FILE = "tokenizer.json"
SLOW = "tokenizer.model"
SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATES = (SETTINGS, "chat_template.json", "processor_config.json")  # as the entry below
ENTRY = "chat_template"


def frame_of(folder: Path, config: Any) -> tuple[PromptFrame, dict[str, str]]:
    """The prompt frame of a checkpoint, and the digests of its tokenizer and of its template, with
    the ids that begin a prompt and end an answer.

    RequestError if the tokenizer or the template is missing, if the template has not exactly one
    placeholder for a picture or leaves the question out, and for token ids that the language model
    does not have.
    """
    if (folder / SLOW).is_file() and not (folder / FILE).is_file():
        raise RequestError(
            f"folder {folder} has {SLOW} and no {FILE}: make it with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    stated = read_json(folder / FILE)
    settings = read_json(folder / SETTINGS)
    tokenizer = _tokenizer(folder)
    template = _template(folder)
    placeholder = tokenizer.convert_ids_to_tokens(config.image_token_index)
    _refuse_outside(folder, config, tokenizer, placeholder)
    frame = PromptFrame(tokenizer, template, placeholder, ends_of(folder, config, tokenizer))
    try:
        frame.check()
    except Exception as error:  # a template may fail in any way
        raise RequestError(
            f"the chat template in {folder} does not fit: {one_line(error)}"
        ) from None
    told = {key: value for key, value in settings.items() if key != ENTRY}
    asked = [template, placeholder, frame.beginning, frame.eos]
    digests = {"tokenizer": content_digest([stated, told]), "template": content_digest(asked)}
    return frame, digests


def _tokenizer(folder: Path) -> Any:
    """The tokenizer as its file states it; no code of the folder runs and nothing is fetched."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files may fail in any way
        reason = one_line(error, kind=True)[:200]
        raise RequestError(
            f"the tokenizer in {folder} cannot be read: {reason}: repair it"
        ) from None


def _template(folder: Path) -> str:
    """The text of the chat template, from the file of its own or from older places."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text("utf-8")
    for name in OLD_TEMPLATES:
        found = read_json(folder / name).get(ENTRY) if (folder / name).is_file() else None
        if isinstance(found, list):  # several by name
            named = {one.get("name"): one.get("template") for one in found if type(one) is dict}
            found = named.get("default")
        if isinstance(found, str):
            return found
    raise RequestError(
        f"folder {folder} has no chat template ({TEMPLATE}, or {ENTRY} in {SETTINGS}): take it "
        "from the checkpoint on the hub"
    )


def _refuse_outside(folder: Path, config: Any, tokenizer: Any, placeholder: Any) -> None:
    known = config.text_config.vocab_size
    if placeholder is None:
        raise RequestError(
            f"the tokenizer in {folder} has no token of id {config.image_token_index}, which "
            "config.json names as image_token_index: give files that belong together"
        )
    highest = max(tokenizer.get_vocab().values())
    if highest >= known:
        raise RequestError(
            f"the tokenizer in {folder} has ids up to {highest}, and the language model has only "
            f"{known} (vocab_size): give files that belong together"
        )
