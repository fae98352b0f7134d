"""The run's life: data in, batches, training steps, weights, validation, checkpoints, the end."""

from nexrl.controller.bookkeeper import Bookkeeper, Recorders
from nexrl.controller.checkpoints import Checkpoints, complete_checkpoints, newest_checkpoint, read_state
from nexrl.controller.controller import Modules, NexRLController
from nexrl.controller.feeder import Feeder
from nexrl.controller.progress import ControllerState, Progress
from nexrl.controller.summary import Outcome, Summary
from nexrl.controller.tasks import TaskMaker

__all__ = [
    "Bookkeeper",
    "Checkpoints",
    "ControllerState",
    "Feeder",
    "Modules",
    "NexRLController",
    "Outcome",
    "Progress",
    "Recorders",
    "Summary",
    "TaskMaker",
    "complete_checkpoints",
    "newest_checkpoint",
    "read_state",
]
