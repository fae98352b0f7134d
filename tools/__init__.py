"""Programs for people beside a run: set-up, trajectories, benchmarks."""
