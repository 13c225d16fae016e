"""The bundled LLaVA's files: complete, intact, small."""

import json
from hashlib import sha256

import torch
from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

from asap.backbones.llava.bundled import BUNDLED, SHA256

FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "training.json",
}  # fmt: skip
MOST_BYTES = 12_000_000


def test_the_folder_has_the_files_of_a_checkpoint_and_is_small():
    assert {file.name for file in BUNDLED.iterdir()} == FILES
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < MOST_BYTES


def test_the_digest_is_that_of_the_file_and_in_its_report():
    digest = sha256((BUNDLED / "model.safetensors").read_bytes()).hexdigest()
    assert digest == SHA256 == json.loads((BUNDLED / "training.json").read_text("utf-8"))["sha256"]


def test_every_tensor_is_loaded():
    model, about = LlavaForConditionalGeneration.from_pretrained(
        BUNDLED, output_loading_info=True, dtype=torch.float32
    )
    assert not any(about.values()), about
    assert model.config.vision_feature_layer == -2
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_template_has_the_picture_once_and_knows_every_word():
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    question = {"type": "text", "text": "Which digit is leftmost?"}
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, question]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert prompt == "USER: <image>\nWhich digit is leftmost? ASSISTANT:"
    ids = tokenizer(prompt).input_ids
    config = json.loads((BUNDLED / "config.json").read_text("utf-8"))
    assert ids.count(config["image_token_index"]) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("elephant").input_ids[1:] == [tokenizer.unk_token_id]


def test_pictures_are_prepared_as_the_tower_was_trained():
    processor = AutoImageProcessor.from_pretrained(BUNDLED)
    picture = torch.randint(0, 256, (112, 112, 3), dtype=torch.uint8).numpy()
    prepared = processor(picture, return_tensors="pt").pixel_values[0]
    expected = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(prepared, expected)
