"""Scalars for TensorBoard."""

import math
from pathlib import Path

from nexrl.metrics.record import MetricRecord


class TensorBoardSink:
    """Writes every finite figure of every record as a scalar below `folder`; needs neither torch nor TensorFlow."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder))

    def write(self, record: MetricRecord) -> None:
        """Add the scalars and flush them: TensorBoard shows a run while it goes on."""
        for name, value in record.values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, record.step, wall_time=record.time)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
