"""From text to masked batches: numpy and TensorFlow only, no JAX."""
