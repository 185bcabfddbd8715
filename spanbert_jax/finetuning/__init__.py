"""Fine-tuning: what a task gives to the training loop, and the story of its run. Tasks are in spanbert_jax.tasks."""
