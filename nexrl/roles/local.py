"""All roles in one process, each on a thread, over the same sockets: for debugging and tests."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nexrl.cluster import Identity, Role
from nexrl.config.schema import Recipe
from nexrl.errors import NexRLError
from nexrl.roles import controller
from nexrl.roles.main import RoleProgram

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 30.0


class LocalRun:
    """The controller on the main thread, the others beside it."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        self._recipe = recipe
        self._identity = identity
        self._run_dir = run_dir
        self._controller = controller.build(recipe, self._as(Role.CONTROLLER), run_dir)
        self._programs: list[RoleProgram] = []

    def run(self) -> int:
        """The controller's exit code, once every role has ended."""
        threads = [
            threading.Thread(target=self._run_role, args=(role, build), daemon=True, name=role.value)
            for role, build in self._builders()
        ]
        for thread in threads:
            thread.start()
        try:
            return self._controller.run()
        finally:
            for program in list(self._programs):
                program.stop(0)
            for thread in threads:
                thread.join(_JOIN_SECONDS)

    def stop(self, exit_code: int) -> None:
        """As the controller's."""
        self._controller.stop(exit_code)

    def _builders(self) -> list[tuple[Role, Callable[[Recipe, Identity, Path], RoleProgram]]]:
        from nexrl.roles import inference, recorder, rollout, trainer  # torch: only in the process that runs it all

        builders: list[tuple[Role, Callable[[Recipe, Identity, Path], RoleProgram]]] = [
            (Role.RECORDER, recorder.build),
            (Role.ROLLOUT, rollout.build),
        ]
        if self._recipe.rollout_worker.need_llm_inference:
            builders.append((Role.INFERENCE, inference.build))
        if self._recipe.service.actor_service.backend != "mock":
            builders.append((Role.TRAINER, trainer.build))
        return builders

    def _run_role(self, role: Role, build: Callable[[Recipe, Identity, Path], RoleProgram]) -> None:
        try:
            program = build(self._recipe, self._as(role), self._run_dir)
            self._programs.append(program)
            program.run()
        except NexRLError as error:
            logger.exception("%s ended", role.value)
            self._controller.fail(error)

    def _as(self, role: Role) -> Identity:
        return replace(self._identity, role=role, group=role.value, rank=0, world_size=1)


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> LocalRun:
    """For nexrl.roles.main."""
    return LocalRun(recipe, identity, run_dir)
