"""What people see: the live view, terminal tables and curves, the closing screen and the report page.

Nothing here computes a statistic.
"""
