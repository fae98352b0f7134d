"""What must hold within one recorded trajectory."""

import math

import numpy as np

from nexrl.types import Trajectory


def findings(trajectory: Trajectory) -> list[str]:
    """What is inconsistent in `trajectory`, one sentence each; empty when all is well."""
    return [*_mask_findings(trajectory), *_span_findings(trajectory), *_turn_findings(trajectory)]


def _mask_findings(trajectory: Trajectory) -> list[str]:
    header, mask, logprobs = trajectory.header, trajectory.loss_mask, trajectory.logprobs
    found = []
    if np.any(mask > 1):
        found.append(f"loss mask holds {int(mask.max())}, only 0 and 1 are allowed")
    if int(np.count_nonzero(mask)) != header.num_trained:
        found.append(f"num_trained is {header.num_trained}, the loss mask marks {int(np.count_nonzero(mask))} tokens")
    if np.any(logprobs[mask == 0] != 0):
        found.append("log-probs differ from 0 outside the loss mask")
    if not np.all(np.isfinite(logprobs)) or np.any(logprobs > 0):
        found.append("log-probs are not all finite and at most 0")
    if not math.isfinite(header.reward):
        found.append(f"reward is {header.reward}")
    if len(trajectory.tokens) and int(trajectory.tokens.min()) < 0:
        found.append("negative token id")
    return found


def _span_findings(trajectory: Trajectory) -> list[str]:
    """Spans are ordered and disjoint, and every trained token lies in one; none at all where no engine was asked."""
    header, spans = trajectory.header, trajectory.spans
    if not spans and header.version_min == -1:
        return []
    found = []
    covered = np.zeros(len(trajectory.tokens), dtype=bool)
    end = 0
    for span in spans:
        if not end <= span.start < span.end <= len(trajectory.tokens):
            found.append(f"span {span.start}:{span.end} overlaps the one before it or leaves the trajectory")
            continue
        covered[span.start : span.end] = True
        end = span.end
    missing = int(np.count_nonzero(trajectory.loss_mask.astype(bool) & ~covered))
    if missing:
        found.append(f"{missing} trained tokens lie in no weight-version span")
    versions = [span.version for span in spans]
    if versions and header.num_trained and (min(versions), max(versions)) != (header.version_min, header.version_max):
        found.append(
            f"spans have versions {min(versions)} to {max(versions)}, the header says "
            f"{header.version_min} to {header.version_max}"
        )
    return found


def _turn_findings(trajectory: Trajectory) -> list[str]:
    found = []
    end = 0
    for turn in trajectory.turns:
        if not end <= turn.start <= turn.end <= len(trajectory.tokens):
            found.append(
                f"turn {turn.start}:{turn.end} ({turn.role}) overlaps the one before it or leaves the trajectory"
            )
        end = turn.end
    return found
