"""Cost: what a run will need before it starts; memory predicted and measured, and `check`.

Printing belongs in `views`.
"""
