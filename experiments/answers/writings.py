"""What math_accuracy and trl.rewards.accuracy_reward pay for other writings of golds, and for wrong answers.

    python experiments/answers/writings.py [--golds tests/rewards/cases/golds.txt] [--num-writings 20] [--json FILE]

Each gold is written in other ways, which are right, and wrongly, by the rules of `rl_posttrain.rewards.writings`. Both
functions judge the same completions. trl's gets each gold in a box, as it parses no bare one.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trl.rewards import accuracy_reward

from rl_posttrain.rewards import math_accuracy
from rl_posttrain.rewards.writings import near_misses, rewrites

BATCH = 64
GOLDS = Path(__file__).resolve().parents[2] / "tests" / "rewards" / "cases" / "golds.txt"


class Asked(NamedTuple):
    kind: str
    gold: str
    completion: str
    is_right: bool


def golds_in(path: Path) -> Iterator[tuple[str, str]]:
    """The kind and the text of each gold: a line each, below headings such as ``## integer``."""
    kind = "all"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif line and not line.startswith("#"):
            yield kind, line


def ours(batch: list[Asked]) -> list[float | None]:
    return math_accuracy([case.completion for case in batch], [case.gold for case in batch])


def trls(batch: list[Asked]) -> list[float | None]:
    chats = [[{"role": "assistant", "content": case.completion}] for case in batch]
    return accuracy_reward(chats, [rf"\boxed{{{case.gold}}}" for case in batch])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golds", type=Path, default=GOLDS, help="a file of golds, one a line, with headings of kinds")
    parser.add_argument("--num-writings", type=int, default=20, help="right writings of a gold, and as many wrong ones")
    parser.add_argument("--json", type=Path, help="also write the counts into this file")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # math-verify logs every answer that it cannot read
    asked = [
        Asked(kind, gold, writing.completion, is_right)
        for kind, gold in golds_in(arguments.golds)
        for make, is_right in ((rewrites, True), (near_misses, False))
        for writing in make(gold, arguments.num_writings)
    ]
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for name, judge in (("math_accuracy", ours), ("accuracy_reward", trls)):
        started = time.perf_counter()
        rewards = [reward for start in range(0, len(asked), BATCH) for reward in judge(asked[start : start + BATCH])]
        print(f"{name}: {len(asked):,} answers in {time.perf_counter() - started:.1f} s")
        for case, reward in zip(asked, rewards, strict=True):
            for kind in (case.kind, "all"):
                empty = {"right": 0, "right_paid": 0, "wrong": 0, "wrong_paid": 0}
                counted = counts.setdefault(kind, {}).setdefault(name, empty)
                what = "right" if case.is_right else "wrong"
                counted[what] += 1
                counted[f"{what}_paid"] += reward == 1.0
    print(f"{'kind':<12} {'right paid: ours':>18} {'trl':>8} {'wrong paid: ours':>18} {'trl':>8}")
    for kind, by_name in sorted(counts.items(), key=lambda item: item[0] == "all"):
        mine, other = by_name["math_accuracy"], by_name["accuracy_reward"]
        paid = [f"{counted['right_paid'] / counted['right']:.1%}" for counted in (mine, other)]
        print(f"{kind:<12} {paid[0]:>18} {paid[1]:>8} {mine['wrong_paid']:>18} {other['wrong_paid']:>8}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(counts, indent=2) + "\n")


if __name__ == "__main__":
    main()
