"""What a run says about itself: one record of figures per step, sent to sinks; events; the plot at the end.

    MetricLogger ──► JsonlSink         metrics.jsonl, one line per step
                 ├─► ConsoleSink       one log line per step
                 ├─► TensorBoardSink   tensorboard/
                 └─► WandbSink         wandb/, offline where there is no key
    EventLog     ──► events.jsonl      phases, roles, validation, checkpoints, errors, the end
    plot_run     ──► reward.png        read from the two files

Names are `group/name`; those that other parts read back are constants in `nexrl.metrics.record`.
"""

from nexrl.metrics.console import ConsoleSink
from nexrl.metrics.create import create_sinks
from nexrl.metrics.events import EventLog
from nexrl.metrics.jsonl import JsonLines, JsonlSink, read_json_lines
from nexrl.metrics.logger import MetricLogger, Progress, StepMetrics
from nexrl.metrics.plot import plot_run
from nexrl.metrics.record import ENTROPY, ETA, REWARD, STALENESS, TOKENS_PER_SECOND, MetricRecord, MetricSink
from nexrl.metrics.tensorboard_sink import TensorBoardSink
from nexrl.metrics.wandb_sink import WandbSink

__all__ = [
    "ENTROPY",
    "ETA",
    "REWARD",
    "STALENESS",
    "TOKENS_PER_SECOND",
    "ConsoleSink",
    "EventLog",
    "JsonLines",
    "JsonlSink",
    "MetricLogger",
    "MetricRecord",
    "MetricSink",
    "Progress",
    "StepMetrics",
    "TensorBoardSink",
    "WandbSink",
    "create_sinks",
    "plot_run",
    "read_json_lines",
]
