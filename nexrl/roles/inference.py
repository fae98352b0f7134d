"""One engine replica."""

from pathlib import Path

from nexrl.cluster import Identity
from nexrl.config.schema import Recipe
from nexrl.inference.embedded import EmbeddedEngine, EngineServer, load_engine_model
from nexrl.models import load_tokenizer
from nexrl.roles.device import engine_device, limit_threads
from nexrl.roles.session import Session
from nexrl.weights import BroadcastReceiver


class InferenceRole:
    """The embedded engine behind its HTTP server, with the receiving end of the weight group."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        limit_threads(identity.threads)
        self._session = Session(recipe, identity, run_dir)
        config = recipe.service.inference_service
        path = config.model_path or recipe.service.actor_service.actor.model.path
        model = load_engine_model(path, config.dtype, engine_device(identity))
        tokenizer = load_tokenizer(path)
        self._engine = EmbeddedEngine(model, tokenizer, config)
        receiver = BroadcastReceiver(self._engine, timeout=recipe.weight.timeout)
        self._server = EngineServer(
            self._engine,
            tokenizer,
            config,
            token=self._session.keys.http_token,
            host=identity.host_address,
            weight_receiver=receiver,
        )

    def run(self) -> int:
        """Until the controller says shutdown."""
        self._server.start()
        self._session.register({"http": self._server.url})
        self._session.stopped.wait()
        self._server.stop()
        self._session.close()
        return 0

    def stop(self, exit_code: int) -> None:
        """End; running requests are cut off."""
        self._session.stopped.set()


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> InferenceRole:
    """For nexrl.roles.main."""
    return InferenceRole(recipe, identity, run_dir)
