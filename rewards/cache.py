"""A dictionary of bounded size for several threads; it drops the least recently used entry."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Key, Value = TypeVar("Key"), TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Keeps the `max_entries` most recently used values."""

    def __init__(self, max_entries: int):
        self._max_entries = max_entries
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._max_entries:
                self._values.popitem(last=False)
