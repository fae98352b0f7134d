"""The embedded engine: continuous batching over a transformers model, behind an OpenAI-compatible server.

HTTP routes ─ submit ─► EmbeddedEngine (thread) ─► Rows (who has which slot) ─► ModelRunner (forward on SlotCache)
     ◄─────── events ───────┘                                                     └─► draw (one token per row)
"""

from nexrl.inference.embedded.engine import EmbeddedEngine
from nexrl.inference.embedded.loading import EngineModel, load_engine_model
from nexrl.inference.embedded.request import GenerationRequest, RequestError, Sample
from nexrl.inference.embedded.server import EngineServer

__all__ = [
    "EmbeddedEngine",
    "EngineModel",
    "EngineServer",
    "GenerationRequest",
    "RequestError",
    "Sample",
    "load_engine_model",
]
