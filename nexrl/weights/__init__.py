"""New weights from the trainer into the engines. (`nexrl.weights.sender` and `.receiver` need torch and are imported by
name.)"""

from nexrl.weights.controller import SyncReport, SyncState, WeightSyncController
from nexrl.weights.publisher import ABORT_GROUP, OPEN_GROUP, SEND_WEIGHTS, WeightPublisher, ZmqWeightPublisher
from nexrl.weights.staleness import need_block

__all__ = [
    "ABORT_GROUP",
    "OPEN_GROUP",
    "SEND_WEIGHTS",
    "SyncReport",
    "SyncState",
    "WeightPublisher",
    "WeightSyncController",
    "ZmqWeightPublisher",
    "need_block",
]
