"""From data rows to tasks: what is asked, and under which random numbers."""

from collections.abc import Callable

from nexrl.config.schema import Recipe, SamplingOverride
from nexrl.data import BaseDataLoader, DataItem
from nexrl.types import SamplingParams, Task


def group_id_of(item: DataItem) -> str:
    """Unique per epoch of the row; a replayed item keeps it, and with it its random numbers."""
    return f"{item.task_id}@{item.epoch}"


class TaskMaker:
    """Makes training tasks one by one, and the tasks of a validation pass at once."""

    def __init__(self, recipe: Recipe) -> None:
        self._data = recipe.data
        worker = recipe.rollout_worker
        self._sampling = SamplingParams(
            max_tokens=recipe.data.max_response_length,
            temperature=worker.temperature,
            top_p=worker.top_p,
            top_k=worker.top_k,
            stop=worker.stop,
        )
        self._validate = recipe.validate
        self._stop = worker.stop
        self._model_tag = recipe.service.inference_service.identifier

    def training(self, item: DataItem) -> Task:
        """One prompt, `rollout_repeat_n` samples."""
        return self._task(
            item, group_id_of(item), run_ids=self._data.rollout_repeat_n, sampling=self._sampling, val=False
        )

    def validation(self, loader: BaseDataLoader) -> Callable[[int], dict[str, list[Task]]]:
        """For the Validator: step → tasks by name of the way to sample, over all of `loader`'s first epoch."""

        def tasks(step: int) -> dict[str, list[Task]]:
            return {name: self._pass(loader, name, how, step) for name, how in self._validate.sampling.items()}

        return tasks

    def _pass(self, loader: BaseDataLoader, name: str, how: SamplingOverride, step: int) -> list[Task]:
        data = self._validate.data or self._data
        sampling = SamplingParams(
            max_tokens=data.max_response_length,
            temperature=how.temperature,
            top_p=how.top_p,
            top_k=how.top_k,
            stop=self._stop,
        )
        loader.reset()
        made = []
        while (item := loader.get_next_item()) is not None and item.epoch == 0:
            group_id = f"val/{name}/{item.task_id}@{step}"
            made.append(self._task(item, group_id, run_ids=how.repeat_n, sampling=sampling, val=True))
        return made

    def _task(self, item: DataItem, group_id: str, *, run_ids: int, sampling: SamplingParams, val: bool) -> Task:
        return Task(
            task_id=item.task_id,
            group_id=group_id,
            order=item.order,
            run_ids=tuple(range(run_ids)),
            attempt=0,
            is_val=val,
            prompt=item.prompt,
            ground_truth=item.ground_truth,
            data_source=item.data_source,
            seed=self._data.seed,
            sampling=sampling,
            model_tag=self._model_tag,
            fields=item.fields,
        )
