"""Engines and their clients: generation over HTTP, control of weights, and the embedded engine (`.embedded`)."""

from nexrl.inference.client import HttpEngineClient
from nexrl.inference.control import HttpEngineControl

__all__ = ["HttpEngineClient", "HttpEngineControl"]
