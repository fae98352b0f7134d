"""The engine: continuous batching on a thread of its own.

Every turn of the loop takes in new requests, gives them slots and prefills their prompts, then decodes one token for
all running samples. Samples join and leave at any turn.
"""

import copy
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence

import torch

from nexrl.errors import InferenceError, WeightSyncError
from nexrl.inference.embedded.loading import EngineModel
from nexrl.inference.embedded.request import (
    Event,
    Failed,
    GenerationRequest,
    Job,
    Listener,
    Sample,
    prompt_groups,
)
from nexrl.inference.embedded.rows import Rows, Running
from nexrl.inference.embedded.runner import ModelRunner
from nexrl.inference.embedded.sampler import draw
from nexrl.inference.embedded.text import StopWatch, TextStream

logger = logging.getLogger(__name__)


class EmbeddedEngine:
    """Generates for many requests at once over one model; implements WeightTarget.

    `start` and `stop` are for the owner; all other methods may be called from any thread while it runs.
    """

    def __init__(
        self, loaded: EngineModel, *, max_num_seqs: int, max_model_len: int, deterministic: bool = False
    ) -> None:
        self.tokenizer = loaded.tokenizer
        self.max_model_len = max_model_len
        self.max_num_seqs = max_num_seqs
        self.steps = 0
        """Decoding forwards so far."""
        self.version = 0
        """Of the weights in place."""
        self.weights_whole = True
        """False from the first byte of an update to its commit."""
        self._model = loaded.model
        self._runner = ModelRunner(
            loaded.model, max_num_seqs=max_num_seqs, max_model_len=max_model_len, deterministic=deterministic
        )
        self.vocab_size = self._runner.vocab_size
        self._rows = Rows(
            max_num_seqs, max_model_len, eos=loaded.eos_V, device=self._runner.device, full_batches=deterministic
        )
        # A fast tokenizer is not to be used by two threads at once, and stop strings are read on the engine's.
        self._tokenizer = copy.deepcopy(loaded.tokenizer)
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._cancelled: list[Job] = []
        self._paused = False
        self._stopping = False
        self._failure: InferenceError | None = None
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; requests that are not done fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def failure(self) -> InferenceError | None:
        """Why the engine no longer works, if it does not."""
        return self._failure

    @property
    def is_paused(self) -> bool:
        """Whether new requests wait."""
        return self._paused

    @property
    def idle(self) -> bool:
        """Whether no request runs (some may wait)."""
        return self._rows.count == 0 and not any(job.started for job in self._queue)

    @property
    def running(self) -> int:
        """Samples that have a slot."""
        return self._rows.count

    @property
    def waiting(self) -> int:
        """Samples that have none yet."""
        with self._changed:
            return sum(len(job.waiting) for job in self._queue)

    def submit(self, request: GenerationRequest, listener: Listener) -> Job:
        """Queue a request. `listener` hears one Sample per seed, before them their TokenEvents where the request
        streams, or one Failed. Raises RequestError, or InferenceError where the engine no longer works."""
        request.check(max_model_len=self.max_model_len, vocab_size=self.vocab_size)
        job = Job(request, listener)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._queue.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Forget a request: its slots are free at the next step, its listener hears nothing more."""
        with self._changed:
            job.cancelled = True
            self._cancelled.append(job)
            self._changed.notify_all()

    def generate(self, request: GenerationRequest) -> list[Sample]:
        """Submit and wait: one sample per seed, in their order. Raises what stopped it."""
        if not (self._thread.is_alive() or self._failure):
            raise InferenceError("the engine has not been started")
        done = threading.Event()
        events: list[Event] = []

        def listen(event: Event) -> None:
            events.append(event)
            if isinstance(event, Failed) or sum(isinstance(e, Sample) for e in events) == len(request.seeds):
                done.set()

        self.submit(request, listen)
        done.wait()
        for event in events:
            if isinstance(event, Failed):
                raise event.error
        return sorted((e for e in events if isinstance(e, Sample)), key=lambda sample: sample.index)

    def pause(self) -> None:
        """Hold new requests back; running ones go on (`wait_idle` says when they are done)."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no request runs; False if one still does. Raises if the engine fails."""
        with self._changed:
            self._changed.wait_for(lambda: self.idle or self._failure is not None, timeout)
            if self._failure is not None:
                raise self._failure
            return self.idle

    def resume(self) -> None:
        """Serve again; raises WeightSyncError while the weights are not whole."""
        with self._changed:
            if not self.weights_whole:
                raise WeightSyncError("the last weight update did not finish: send one that does before resuming")
            self._paused = False
            self._changed.notify_all()

    def begin_update(self) -> None:
        """New weights are about to be written in place; raises WeightSyncError unless paused and idle."""
        with self._changed:
            if not (self._paused and self.idle):
                raise WeightSyncError("weights change only while the engine is paused and no request runs")
            self.weights_whole = False

    def parameters(self) -> Mapping[str, torch.Tensor]:
        """The model's own tensors by Hugging Face name, tied ones once."""
        return dict(self._model.named_parameters())

    def invalidate(self, reason: str) -> None:
        """The weights in place are no version's: nothing is served until an update is committed."""
        logger.error("weights are not whole: %s", reason)
        with self._changed:
            self.weights_whole = False
            self._paused = True

    def commit(self, version: int) -> None:
        """Serve what now stands in `parameters()` as `version`; raises WeightSyncError if a request runs."""
        with self._changed:
            if not self.idle:
                raise WeightSyncError(f"weights {version}: requests run under version {self.version}")
            self._runner.cache.clear()
            self.version = version
            self.weights_whole = True

    def _run(self) -> None:
        """Until stopped. Waits for work; unblocked by submit, cancel, resume and stop."""
        try:
            while self._take_in():
                self._admit()
                if self._rows.count:
                    self._decode()
        except Exception as error:
            logger.exception("the engine failed")
            self._fail(InferenceError(f"the engine failed: {type(error).__name__}: {error}"))
        else:
            self._fail(InferenceError("the engine has been stopped"))

    def _take_in(self) -> bool:
        """Wait for work, drop what was cancelled; False to stop."""
        with self._changed:
            if self.idle:
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._cancelled or self._rows.count or self._admissible())
            cancelled, self._cancelled = self._cancelled, []
            if cancelled:
                self._queue = deque(job for job in self._queue if not job.cancelled)
        if cancelled:
            self._drop([slot for slot, sample in enumerate(self._rows.running) if sample.job.cancelled])
        return not self._stopping

    def _admissible(self) -> bool:
        """Whether the request at the head may have slots: while paused only if some of its samples had one."""
        return bool(self._queue) and (not self._paused or self._queue[0].started)

    def _admit(self) -> None:
        with self._changed:
            if not self._rows.free or not self._admissible():
                return
            jobs = list(self._queue) if not self._paused else [self._queue[0]]
            groups = prompt_groups(jobs, self._rows.free)
            start = self._rows.count
            slots = [[self._rows.add(self._running(job, index)) for index in indices] for job, indices in groups]
            while self._queue and not self._queue[0].waiting:
                self._queue.popleft()
        logits = self._runner.prefill([job.request.prompt_ids for job, _ in groups], slots)
        sources = [row for row, taken in enumerate(slots) for _ in taken]
        self._sample(start, self._rows.count, logits[sources])

    def _running(self, job: Job, index: int) -> Running:
        request, watch = job.request, None
        if request.sampling.stop:
            stream = TextStream(self._tokenizer, skip_special_tokens=request.skip_special_tokens)
            watch = StopWatch(stream, request.sampling.stop, include_stop=request.include_stop)
        return Running(job, index, self.version, watch)

    def _decode(self) -> None:
        rows = self._rows
        logits = self._runner.decode(rows.last_token, rows.position, rows.count)
        self.steps += 1
        self._sample(0, rows.count, logits[: rows.count])

    @torch.inference_mode()
    def _sample(self, start: int, stop: int, logits: torch.Tensor) -> None:
        """One more token for rows `start` to `stop` - 1; those that end leave."""
        batch = self._rows.batch(start, stop)
        if self._runner.deterministic:  # one shape for all
            logits_SV = logits.new_zeros(self.max_num_seqs, self.vocab_size)
            logits_SV[start:stop] = logits
            drawn = draw(logits_SV, batch).rows(start, stop)
        else:
            drawn = draw(logits, batch)
        ended = self._rows.accept(start, stop, drawn)
        for slot in ended:
            self._finish(slot)
        self._drop(ended)

    def _finish(self, slot: int) -> None:
        """Deliver the sample in `slot`."""
        job = self._rows.running[slot].job
        if job.cancelled:
            return
        if self._rows.finite(slot):
            job.listener(self._rows.sample(slot))
            return
        job.listener(Failed(InferenceError(f"weights {self.version}: the model's output is not finite")))
        self.cancel(job)

    def _drop(self, slots: Sequence[int]) -> None:
        """Free `slots`, the last first: rows stay together."""
        for slot in sorted(slots, reverse=True):
            moved = self._rows.remove(slot)
            if moved is not None:
                self._runner.cache.move(moved, slot, int(self._rows.position[slot]))

    def _fail(self, error: InferenceError) -> None:
        with self._changed:
            self._failure = error
            jobs = {id(sample.job): sample.job for sample in self._rows.running}
            jobs |= {id(job): job for job in self._queue}
            self._queue.clear()
            self._changed.notify_all()
        for job in jobs.values():
            if not job.cancelled:
                job.listener(Failed(error))
