"""Comparisons of runs: which runs there are, running them, reading them back, statistics and verdicts.

Whatever judges runs reads run directories, or files of other programs, and nothing else. Drawing and printing belong in
`views`.
"""
