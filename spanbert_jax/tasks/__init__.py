"""What a pretrained model is used for: one file a task."""
