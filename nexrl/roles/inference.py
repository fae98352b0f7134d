"""One engine replica."""

from pathlib import Path

from nexrl.cluster import Identity
from nexrl.config.schema import Recipe
from nexrl.inference.embedded import EmbeddedEngine, EngineServer, load_engine_model
from nexrl.roles.device import engine_device, limit_threads
from nexrl.roles.session import Session
from nexrl.weights.receiver import BroadcastReceiver


class InferenceRole:
    """The embedded engine behind its HTTP server, with the receiving end of the weight group."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        limit_threads(identity.threads)
        self._session = Session(recipe, identity, run_dir)
        config, actor = recipe.service.inference_service, recipe.service.actor_service.actor
        device = engine_device(identity)
        loaded = load_engine_model(
            config.model_path or actor.model.path,
            dtype=config.dtype,
            device=str(device),
            random_init=not config.model_path and actor.model.init == "random",
        )
        self._engine = EmbeddedEngine(
            loaded,
            max_num_seqs=config.max_num_seqs,
            max_model_len=config.max_model_len,
            deterministic=config.deterministic,
        )
        self._server = EngineServer(
            self._engine,
            token=self._session.keys.http_token,
            model=config.model,
            host=identity.host_address,
            receiver=BroadcastReceiver(self._engine, device=device, timeout=recipe.weight.timeout),
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
