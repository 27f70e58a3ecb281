"""What people see: the live view, tables and curves in the terminal, the end of a run, and the report page.

Statistics belong in `study`.
"""
