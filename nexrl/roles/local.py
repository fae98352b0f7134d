"""All roles in one process, each on a thread, over the same sockets: for debugging and tests."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from nexrl.cluster import Identity, Role
from nexrl.config.schema import Recipe
from nexrl.controller.background import start_thread
from nexrl.roles import controller
from nexrl.roles.main import RoleProgram

_JOIN_SECONDS = 30.0


class LocalRun:
    """The controller on the main thread, the others beside it."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        self._recipe = recipe
        self._identity = identity
        self._run_dir = run_dir
        self._controller = controller.build(recipe, self._as(Role.CONTROLLER), run_dir)
        self._programs: dict[str, RoleProgram] = {}

    def run(self) -> int:
        """The controller's exit code, once every role has ended."""
        threads = [
            start_thread(role.value, partial(self._run_role, role, build), on_error=self._controller.fail)
            for role, build in self._builders()
        ]
        try:
            return self._controller.run()
        finally:
            begun = dict(self._programs)  # the others still look for a controller: they go with the process
            for program in begun.values():
                program.stop(0)
            for thread in threads:
                if thread.name in begun:
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
        program = build(self._recipe, self._as(role), self._run_dir)
        self._programs[role.value] = program
        program.run()

    def _as(self, role: Role) -> Identity:
        return replace(self._identity, role=role, group=role.value, rank=0, world_size=1)


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> LocalRun:
    """For nexrl.roles.main."""
    return LocalRun(recipe, identity, run_dir)
