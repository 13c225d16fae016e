"""LLaVA-1.5 taken apart: vision tower, projector, language model, prompt and pictures."""
