"""How the coefficient of a KL penalty moves from step to step. A control is a value: a step gives a new one."""

from dataclasses import dataclass, replace
from typing import Self

MAX_CHANGE = 0.2
"""Largest relative error that one step reacts to."""


@dataclass(frozen=True)
class FixedKL:
    """The same coefficient throughout."""

    coefficient: float

    def updated(self, *, kl: float, sequences: int) -> Self:
        """Itself, whatever was measured."""
        return self


@dataclass(frozen=True)
class AdaptiveKL:
    """Steers the KL per sequence to `target`, proportionally (Ziegler et al. 2019, arXiv:1909.08593, section 2.2)."""

    coefficient: float
    target: float
    horizon: int
    """In sequences."""

    def updated(self, *, kl: float, sequences: int) -> Self:
        """After a step that saw `sequences` sequences of mean divergence `kl`."""
        error = min(max(kl / self.target - 1.0, -MAX_CHANGE), MAX_CHANGE)
        return replace(self, coefficient=self.coefficient * (1.0 + error * sequences / self.horizon))
