"""One trainer rank."""

import logging
import socket
from pathlib import Path

from nexrl.cluster import Identity
from nexrl.cluster.process_group import init_default_group
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
        identity, session = self._identity, self._session
        session.register({"master_port": str(_free_port(identity.host_address)), "address": identity.host_address})
        if identity.world_size > 1:
            first = session.discover(identity.role)[0]
            init_default_group(
                identity,
                first.endpoints["address"],
                int(first.endpoints["master_port"]),
                self._recipe.comm.call_timeout,
            )

    def _serve(self) -> None:
        recipe, session = self._recipe, self._session
        recorders = {
            recorder.name: connect_recorder(recorder, keys=session.keys, name=self._identity.name, comm=recipe.comm)
            for recorder in session.discover("recorder")
        }
        device = engine_device(self._identity)
        worker = TrainWorker(recipe, source=RecorderSource(recorders, timeout=recipe.comm.call_timeout), device=device)
        service = TrainService(worker, session.rpc)
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


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> TrainerRole:
    """For nexrl.roles.main."""
    return TrainerRole(recipe, identity, run_dir)
