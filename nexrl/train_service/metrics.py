"""What an update reports: sums over micro-batches, ranks and optimizer steps, and the numbers made of them."""

import math
from dataclasses import dataclass, field

import torch

from nexrl.train_service.objective import MicroLoss


class StepSums:
    """One optimizer step: the micro-batches of this rank, added up on the device, then over all ranks."""

    def __init__(self) -> None:
        self._names: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._vector: torch.Tensor | None = None

    def add(self, micro: MicroLoss) -> None:
        """Each micro-batch of a step has the same names."""
        vector = torch.stack([*micro.parts.values(), *micro.sums.values()]).double()
        self._names = (tuple(micro.parts), tuple(micro.sums))
        self._vector = vector if self._vector is None else self._vector + vector

    @property
    def vector(self) -> torch.Tensor:
        """float64: to be summed over ranks."""
        if self._vector is None:
            raise RuntimeError("an optimizer step has at least one micro-batch")
        return self._vector

    def named(self, total: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """Parts and sums of a summed `vector`."""
        if self._names is None:
            raise RuntimeError("an optimizer step has at least one micro-batch")
        parts, sums = self._names
        values = total.tolist()
        return dict(zip(parts, values, strict=False)), dict(zip(sums, values[len(parts) :], strict=True))


@dataclass
class UpdateSums:
    """All optimizer steps of one batch."""

    steps: int = 0
    skipped: int = 0
    tokens: int = 0
    sequences: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)

    def add(self, parts: dict[str, float], sums: dict[str, float], *, norm: float, tokens: int, sequences: int) -> bool:
        """Add one optimizer step; returns whether it can be trusted: loss and gradient norm are finite."""
        if not (math.isfinite(norm) and math.isfinite(parts["policy_loss"])):
            self.skipped += 1
            return False
        self.steps += 1
        self.tokens += tokens
        self.sequences += sequences
        self.norms.append(norm)
        for mine, new in ((self.parts, parts), (self.sums, sums)):
            for name, value in new.items():
                mine[name] = mine.get(name, 0.0) + value
        return True

    @property
    def kl_per_sequence(self) -> float | None:
        """KL penalty per sequence; None where there is no reference."""
        return self.sums["kl"] / max(self.sequences, 1) if "kl" in self.sums else None

    def metrics(self) -> dict[str, float]:
        """`actor/…`: parts averaged over optimizer steps, everything else over trained tokens; steps that were skipped
        are left out of both."""
        steps, tokens = max(self.steps, 1), max(self.tokens, 1)
        found = {f"actor/{name}": value / steps for name, value in self.parts.items()}
        found |= {f"actor/{name}": value / tokens for name, value in self.sums.items() if name != "kl"}
        if self.norms:
            found["actor/grad_norm"] = sum(self.norms) / len(self.norms)
        found["actor/skipped_updates"] = float(self.skipped)
        return found
