"""Held-out prompts through the same rollout workers, and what they say."""

from nexrl.validator.metrics import validation_metrics
from nexrl.validator.validator import Validator

__all__ = ["Validator", "validation_metrics"]
