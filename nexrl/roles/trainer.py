"""One trainer rank."""

import logging
from pathlib import Path

from nexrl.cluster import Identity
from nexrl.cluster.process_group import free_store, init_default_group
from nexrl.config.schema import Recipe
from nexrl.errors import NexRLError
from nexrl.roles.device import engine_device, limit_threads
from nexrl.roles.recorders import RecorderSource, connect_recorder
from nexrl.roles.session import Session
from nexrl.train_service import TrainService, TrainWorker
from nexrl.types import OpenGroup, SendWeights
from nexrl.weights import ABORT_GROUP, OPEN_GROUP, SEND_WEIGHTS
from nexrl.weights.sender import BroadcastSender

logger = logging.getLogger(__name__)


class TrainerRole:
    """The train service's rank, and the sending end of the weight group."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        limit_threads(identity.threads)
        self._recipe = recipe
        self._identity = identity
        self._session = Session(recipe, identity, run_dir)

    def run(self) -> int:
        """Until the controller says shutdown."""
        session = self._session
        try:
            self._join_ranks()
            self._serve()
        except NexRLError as error:
            session.failed(error, work="training")
        finally:
            session.close()
        return 0

    def stop(self, exit_code: int) -> None:
        """End after the command under way."""
        self._session.stopped.set()

    def _join_ranks(self) -> None:
        """Register, and make torch's default group where there are several ranks: rank 0 says where they meet."""
        identity, session, timeout = self._identity, self._session, self._recipe.comm.call_timeout
        store = free_store(identity.host_address, timeout=timeout) if identity.rank == 0 else None
        place = {} if store is None else {"address": identity.host_address, "port": str(store.port)}
        session.register(place)
        if identity.world_size > 1:
            first = session.discover(identity.role)[0].endpoints
            init_default_group(identity, first["address"], int(first["port"]), timeout, store=store)

    def _serve(self) -> None:
        recipe, session = self._recipe, self._session
        recorders = {
            recorder.name: connect_recorder(recorder, keys=session.keys, name=self._identity.name, comm=recipe.comm)
            for recorder in session.discover("recorder")
        }
        device = engine_device(self._identity)
        worker = TrainWorker(recipe, source=RecorderSource(recorders, timeout=recipe.comm.call_timeout), device=device)
        service = TrainService(worker, session.rpc, tracker=session.tracker)
        sender = BroadcastSender(
            worker,
            rank=self._identity.rank,
            host_address=self._identity.host_address,
            bucket_bytes=int(recipe.weight.bucket_mb * 2**20),
            device=device,
            timeout=recipe.weight.timeout,
        )
        service.add(OPEN_GROUP, OpenGroup, lambda r: sender.open_group(world_size=r.world_size, epoch=r.epoch))
        service.add(SEND_WEIGHTS, SendWeights, lambda r: sender.send(version=r.version))
        session.rpc.expose(ABORT_GROUP, None, lambda caller, request: sender.abort())
        service.run(session.stopped)


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> TrainerRole:
    """For nexrl.roles.main."""
    return TrainerRole(recipe, identity, run_dir)
