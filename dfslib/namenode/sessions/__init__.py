"""Mounts: their sessions, what they have open, locked and cached."""
