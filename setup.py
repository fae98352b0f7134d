"""The distribution. Versions are pinned in constraints.txt, beside what each dependency is for."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+?)"', Path(__file__).with_name("nexrl").joinpath("__init__.py").read_text())

CORE = [
    "h5py",
    "httptools",
    "httpx",
    "huggingface-hub",
    "hydra-core",
    "isal",
    "jinja2",
    "math-verify",
    "matplotlib",
    "msgspec",
    "numpy",
    "omegaconf",
    "openai",
    "pyarrow",
    "pyyaml",
    "pyzmq",
    "rich",
    "safetensors",
    "starlette",
    "tensorboard",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
    "uvicorn",
    "uvloop",
    "wandb",
]

EXTRAS = {
    "analysis": ["duckdb", "pandas", "plotly"],
    "dev": ["hypothesis", "mypy", "packaging", "psutil", "pytest", "pytest-timeout", "ruff", "types-PyYAML"],
    "megatron": ["megatron-core"],
    "tinker": ["tinker"],
    # Engines that want an environment of their own (their pins contradict ours), hence pinned here.
    "vllm": ["vllm==0.32.0"],
    "sglang": ["sglang==0.5.23"],
}

setup(
    name="nexrl",
    version=VERSION.group(1),
    description="RL post-training of language models as one Slurm job, without Kubernetes and without Ray",
    packages=find_packages(include=["nexrl", "nexrl.*", "launch", "launch.*", "tools", "tools.*"]),
    python_requires=">=3.11,<3.12",
    install_requires=CORE,
    extras_require=EXTRAS,
)
