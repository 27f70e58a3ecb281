"""Guards: they end a step or a run on which going on would only burn money. Read `guards.py` first."""
