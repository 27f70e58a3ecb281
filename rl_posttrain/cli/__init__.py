"""The commands: one file a group, thin. Heavy imports stand inside the command that needs them."""
