"""The bundled LLaVA: a folder as the hub has it, answering questions about scenes of digits."""

from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "weights" / "digits_llava"
# sha256 of its model.safetensors
SHA256 = "a64cd9cc534aa325281c9ed086b539b63868d5e2037c66f412c9b0558604bc25"
