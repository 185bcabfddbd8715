"""The JAX side: pure init and apply. Imports no tensorflow and names no mesh axis."""
