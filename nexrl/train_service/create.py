"""Which client a recipe asks for."""

from collections.abc import Sequence

from nexrl.comm import RpcServer
from nexrl.errors import ConfigError
from nexrl.train_service.client import TrainServiceClient, ZmqTrainServiceClient
from nexrl.train_service.mock import MockTrainServiceClient

MOCK_URL = "mock://localhost"


def create_train_service_client(
    backend: str,
    url: str = MOCK_URL,
    identifier: str = "default",
    *,
    server: RpcServer | None = None,
    ranks: Sequence[str] = (),
    timeout: float = 600.0,
) -> TrainServiceClient:
    """`mock`: answers without training; `zmq` (alias `self-hosted`): the trainer ranks `ranks` connected to `server`.

    Raises ConfigError naming `identifier` for anything else.
    """
    key = f"service.train_service ({identifier})"
    if backend == "mock":
        return MockTrainServiceClient(url)
    if backend not in ("zmq", "self-hosted"):
        raise ConfigError(f"found backend {backend!r}, needs zmq or mock", key=key)
    if server is None or not ranks:
        raise ConfigError(f"backend {backend} needs this job's command server and its trainer ranks", key=key)
    return ZmqTrainServiceClient(server, ranks, timeout)
