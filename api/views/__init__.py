"""Presenters: what the API shows of a value, as pure functions, every field present."""
