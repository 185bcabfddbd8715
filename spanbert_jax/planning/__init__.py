"""What a training step costs on a machine that is not at hand: its program is compiled for that machine and read."""
