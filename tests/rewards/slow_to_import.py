"""A function for the workers of test_workers.py whose module takes its time."""

import time

time.sleep(1)


def echo(value):
    while value is None:
        pass
    return value
