"""Studies: plan and run comparisons, read run histories (ours and foreign), statistics and verdicts.

A study reads run directories and nothing else. Drawing belongs in `views`.
"""
