"""Seeds that are a function of the run's seed and of what is sampled, so that a resumed run samples the same again."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**31) from its parts; the same on every machine, unlike `hash`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
