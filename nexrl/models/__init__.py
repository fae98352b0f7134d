"""Hugging Face folders: loading models and tokenizers, writing weights back."""

from nexrl.models.export import export_hf
from nexrl.models.loading import load_policy
from nexrl.models.prompt import count_prompt_tokens, encode, prompt_text
from nexrl.models.tokenizer import load_tokenizer

__all__ = ["count_prompt_tokens", "encode", "export_hf", "load_policy", "load_tokenizer", "prompt_text"]
