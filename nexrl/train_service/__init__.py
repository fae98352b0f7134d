"""The training backend: a client for the trainer, and the service of the SPMD ranks that it drives.

The client's half comes without torch; `TrainService` and `TrainWorker` are loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

from nexrl.train_service.client import TrainServiceClient, ZmqTrainServiceClient
from nexrl.train_service.create import create_train_service_client
from nexrl.train_service.mock import MockTrainServiceClient
from nexrl.train_service.packing import plan_shards

if TYPE_CHECKING:
    from nexrl.train_service.service import TrainService
    from nexrl.train_service.worker import TrainWorker

__all__ = [
    "MockTrainServiceClient",
    "TrainService",
    "TrainServiceClient",
    "TrainWorker",
    "ZmqTrainServiceClient",
    "create_train_service_client",
    "plan_shards",
]


def __getattr__(name: str) -> Any:
    if name == "TrainService":
        from nexrl.train_service.service import TrainService

        return TrainService
    if name == "TrainWorker":
        from nexrl.train_service.worker import TrainWorker

        return TrainWorker
    raise AttributeError(f"module {__name__} has no attribute {name}")
