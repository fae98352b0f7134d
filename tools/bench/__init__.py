"""The project's figures, measured: `python -m tools.bench --help`.

rows ◄── facts            a figure with its target, and what it was measured on
 ├── demo ── memory       the demo recipe from nothing
 ├── grpo ── time_to_goal, trl_run       ours against TRL's trainer
 ├── engine ── servers, load, serve_embedded, tiny_model       the embedded engine against vLLM
 ├── store, weights       writing trajectories; the pause for new weights
 └── report               rows → console, docs/benchmarks.md
"""
