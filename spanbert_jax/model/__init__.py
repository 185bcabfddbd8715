"""The model: pure functions of parameters. Imports no tensorflow and names no mesh axis."""
