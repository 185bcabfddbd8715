"""Files of labelled examples for fine-tuning: each family of formats has a reader (and a writer of predictions).

Plain Python: no JAX, and TensorFlow only while a TFDS data set is read.
"""
