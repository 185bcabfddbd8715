"""Preparation of a store from any source: workers clean, deduplicate, tokenise and tag its text. See prepare.py."""
