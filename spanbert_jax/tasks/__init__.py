"""Uses of a pretrained model, one file per task."""
