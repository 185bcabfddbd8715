"""Sweeps: many runs that differ in some knobs, divided among workers by a study that they share."""
