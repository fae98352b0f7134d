"""Trajectories in HDF5: written in groups, readable while written and after a crash. docs/trajectory-format.md."""

from nexrl.store.buffer import TrajectoryBuffer
from nexrl.store.layout import FORMAT_VERSION, steps_path, trajectory_path
from nexrl.store.reader import TrajectoryReader
from nexrl.store.recovery import FileReport, inspect_file, inspect_run
from nexrl.store.steps import StepsReader, StepsWriter, TrainedRow
from nexrl.store.superblock import clear_flags
from nexrl.store.writer import TrajectoryWriter

__all__ = [
    "FORMAT_VERSION",
    "FileReport",
    "StepsReader",
    "StepsWriter",
    "TrainedRow",
    "TrajectoryBuffer",
    "TrajectoryReader",
    "TrajectoryWriter",
    "clear_flags",
    "inspect_file",
    "inspect_run",
    "steps_path",
    "trajectory_path",
]
