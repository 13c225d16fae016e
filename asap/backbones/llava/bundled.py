"""The bundled LLaVA: a folder as the hub has it, answering questions about scenes of digits."""

from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "weights" / "digits_llava"
# sha256 of its model.safetensors
SHA256 = "4c0e19b759ec115b01ffaabe415cfb1da5d2fc467ba7c5775b5702bbaf22b70d"
