"""What a step costs on a machine that is not at hand: the real program, compiled for it and read."""
