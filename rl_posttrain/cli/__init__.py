"""The commands: one short file per group. A heavy import is inside the command that needs it."""
