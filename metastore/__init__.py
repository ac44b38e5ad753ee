"""The one place of truth: what is wanted, what is, and what happened; and the watch over nodes."""
