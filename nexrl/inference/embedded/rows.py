"""The running samples as a table: row i of every array belongs to the sample in slot i, rows 0 to count - 1 are taken.

Kept in arrays so that a step's bookkeeping costs a few numpy calls, however many samples run.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from nexrl.inference.embedded.request import Job, Sample, TokenEvent, TopLogprobs
from nexrl.inference.embedded.sampler import Draw, SamplingBatch, Truncation, uniforms
from nexrl.inference.embedded.text import StopWatch


@dataclass
class Running:
    """A sample that has a slot."""

    job: Job
    index: int
    version: int
    watch: StopWatch | None
    top: list[TopLogprobs] = field(default_factory=list)
    stopped: bool = False
    """A stop string is complete."""


class Rows:
    """The table. `full_batches`: every sampling batch has one row per slot, taken or not (one shape for all)."""

    def __init__(self, slots: int, max_len: int, *, eos: np.ndarray, device: torch.device, full_batches: bool) -> None:
        self.count = 0
        self.running: list[Running] = []
        self.last_token = np.zeros(slots, dtype=np.int64)
        self.position = np.zeros(slots, dtype=np.int64)
        """Where `last_token` stands: its keys and values are not in the cache yet."""
        self._generated = np.zeros(slots, dtype=np.int64)
        self._limit = np.zeros(slots, dtype=np.int64)
        self._min_tokens = np.zeros(slots, dtype=np.int64)
        self._ends_at_eos = np.zeros(slots, dtype=bool)
        self._inverse_temperature = np.ones(slots, dtype=np.float32)
        self._greedy = np.zeros(slots, dtype=bool)
        self._top_p = np.ones(slots, dtype=np.float32)
        self._top_k = np.zeros(slots, dtype=np.int64)
        self._top_logprobs = np.zeros(slots, dtype=np.int64)
        self._watched = np.zeros(slots, dtype=bool)
        """Rows whose tokens are looked at one by one: streamed, with stop strings, or with alternatives."""
        self._uniforms = np.zeros((slots, max_len))
        self._tokens = np.zeros((slots, max_len), dtype=np.int64)
        self._logprobs = np.zeros((slots, max_len), dtype=np.float32)
        self._arrays = [array for array in vars(self).values() if isinstance(array, np.ndarray)]
        """All of the above: what belongs to one sample."""
        self._all_rows = np.arange(slots)
        self._eos = eos
        self._eos_ids = torch.from_numpy(np.flatnonzero(eos)).to(device)
        self._device = device
        self._full = full_batches

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return len(self.last_token) - self.count

    def add(self, sample: Running) -> int:
        """Give `sample` the next slot, which is returned; its prompt is about to be prefilled."""
        slot, request = self.count, sample.job.request
        sampling = request.sampling
        self.running.append(sample)
        self.count += 1
        self._generated[slot] = 0
        self._limit[slot] = sampling.max_tokens
        self._min_tokens[slot] = request.min_tokens
        self._ends_at_eos[slot] = not request.ignore_eos
        self._greedy[slot] = sampling.temperature == 0
        self._inverse_temperature[slot] = 1.0 / (sampling.temperature or 1.0)
        self._top_p[slot] = sampling.top_p
        self._top_k[slot] = sampling.top_k
        self._top_logprobs[slot] = request.top_logprobs
        self._watched[slot] = request.stream or sample.watch is not None or request.top_logprobs > 0
        self._uniforms[slot, : sampling.max_tokens] = uniforms(request.seeds[sample.index], sampling.max_tokens)
        self.position[slot] = len(request.prompt_ids) - 1
        return slot

    def remove(self, slot: int) -> int | None:
        """Free `slot`. The last row takes its place, so that taken rows stay together: returns the slot it had, or
        None if there was nothing to move."""
        last = self.count - 1
        moved = last if slot != last else None
        if moved is not None:
            for array in self._arrays:
                array[slot] = array[last]
            self.running[slot] = self.running[last]
        self.running.pop()
        self.count = last
        self.last_token[last] = self.position[last] = 0
        self._greedy[last] = self._watched[last] = False
        self._top_p[last], self._top_k[last], self._top_logprobs[last], self._min_tokens[last] = 1.0, 0, 0, 0
        return moved

    def batch(self, start: int, stop: int) -> SamplingBatch:
        """How to sample rows `start` to `stop` - 1 (of all slots, where batches are full)."""
        if self._full:
            start, stop = 0, len(self.last_token)
        rows, part = self._all_rows[start:stop], slice(start, stop)
        greedy = self._greedy[part]
        truncated = np.flatnonzero((self._top_p[part] < 1) | (self._top_k[part] > 0))
        no_eos = np.flatnonzero(self._generated[part] < self._min_tokens[part])
        return SamplingBatch(
            inverse_temperature_B=self._tensor(self._inverse_temperature[part]),
            uniforms_B=self._tensor(
                self._uniforms[rows, np.minimum(self._generated[part], self._uniforms.shape[1] - 1)]
            ),
            greedy_B=self._tensor(greedy) if greedy.any() else None,
            truncation=self._truncation(start, truncated) if len(truncated) else None,
            no_eos_rows=self._tensor(no_eos) if len(no_eos) else None,
            eos_ids=self._eos_ids,
            top_logprobs=int(self._top_logprobs[part].max()),
        )

    def accept(self, start: int, stop: int, draw: Draw) -> list[int]:
        """Append one token to rows `start` to `stop` - 1 (`draw` has one row for each, in order); returns the slots
        whose sample ended."""
        rows, part = self._all_rows[start:stop], slice(start, stop)
        generated = self._generated[part]
        self._tokens[rows, generated] = draw.tokens_B
        self._logprobs[rows, generated] = draw.logprobs_B
        generated += 1
        self.position[part] += 1
        self.last_token[part] = draw.tokens_B
        ended = generated >= self._limit[part]
        ended |= self._eos[draw.tokens_B] & self._ends_at_eos[part]
        ended |= np.isnan(draw.logprobs_B)
        watched = self._watched[part]
        if watched.any():
            for row in np.flatnonzero(watched):
                ended[row] |= self._look(start + int(row), int(row), draw, ended=bool(ended[row]))
        return (np.flatnonzero(ended) + start).tolist() if ended.any() else []

    def sample(self, slot: int) -> Sample:
        """What the sample in `slot` generated, as its final result."""
        running, count = self.running[slot], int(self._generated[slot])
        tokens = self._tokens[slot, :count]
        at_eos = bool(self._eos[tokens[-1]] and self._ends_at_eos[slot])
        text = None
        if running.watch is not None:
            text = running.watch.text if running.stopped else running.watch.finish()
        return Sample(
            index=running.index,
            token_ids=tokens.tolist(),
            logprobs=self._logprobs[slot, :count].tolist(),
            finish_reason="stop" if at_eos or running.stopped else "length",
            version=running.version,
            text=text,
            top=running.top,
        )

    def finite(self, slot: int) -> bool:
        """Whether the model gave numbers for the last token of `slot`."""
        return bool(np.isfinite(self._logprobs[slot, self._generated[slot] - 1]))

    def _look(self, slot: int, row: int, draw: Draw, *, ended: bool) -> bool:
        """Read the last token for stop strings, stream it unless it ends the sample; True if a stop string is
        complete."""
        running, request = self.running[slot], self.running[slot].job.request
        token_id = int(draw.tokens_B[row])
        top: TopLogprobs = []
        if request.top_logprobs:
            assert draw.top_ids_BK is not None
            assert draw.top_logprobs_BK is not None
            ids = draw.top_ids_BK[row, : request.top_logprobs].tolist()
            top = list(zip(ids, draw.top_logprobs_BK[row, : request.top_logprobs].tolist(), strict=True))
            running.top.append(top)
        if running.watch is not None:
            may_stop = bool(self._generated[slot] >= self._min_tokens[slot])
            running.stopped = running.watch.push(token_id, may_stop=may_stop)
        if request.stream and not (ended or running.stopped or running.job.cancelled):
            running.job.listener(TokenEvent(running.index, token_id, float(draw.logprobs_B[row]), top))
        return running.stopped

    def _truncation(self, start: int, rows: np.ndarray) -> Truncation:
        return Truncation(
            rows_N=self._tensor(rows),
            top_p_N=self._tensor(self._top_p[start + rows]),
            top_k_N=self._tensor(self._top_k[start + rows]),
        )

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)
