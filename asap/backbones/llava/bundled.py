"""The bundled LLaVA: a folder as the hub has it, answering questions about scenes of digits."""

from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "weights" / "digits_llava"
# sha256 of its model.safetensors
SHA256 = "bcaf40be457ddf87864b75dc68f227f28325d3711626946529f6ad88a9a9ead8"
