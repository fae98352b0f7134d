"""NexRL on Slurm: RL post-training of language models without Kubernetes and without Ray."""

__version__ = "0.1.0"
