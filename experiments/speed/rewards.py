"""Answers judged per second, by math_accuracy and by trl.rewards.accuracy_reward on the same inputs.

    python experiments/speed/rewards.py [--prompts 64] [--group-size 8] [--repeats 5] [--json FILE]

Batches are as in GRPO: `group-size` completions for each gold, of about 600 characters, each with a boxed answer at its
end. Half of the answers are right; the wrong ones come from a small set. Both functions get the same batches in the
same order, and each batch once, so that no verdict is cached. The workers run before the clock starts, as in every step
of a run but the first. The command fails if the rewards differ.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from trl.rewards import accuracy_reward

from rl_posttrain.machine.process import num_cores
from rl_posttrain.rewards import math_accuracy

THINKING = (
    r"We are told that the two amounts add up, so let $x$ be the first of them and write the other as $y = 3x - {0}$. "
    r"Substituting gives $4x = {1} + \frac{{{0}}}{{{2}}}$, and after collecting terms the first amount follows. "
)


def integers(draw: random.Random) -> tuple[str, list[str]]:
    value = draw.randint(-9_999, 99_999)
    return str(value), [str(value), f"{value}.0", str(value + 1), str(value - draw.randint(2, 50)), str(-value + 1)]


def decimals(draw: random.Random) -> tuple[str, list[str]]:
    value = draw.randint(-99_999, 99_999)
    gold = f"{value / 100:.2f}"
    return gold, [gold, f"{gold}0", f"{(value + 7) / 100:.2f}", f"{(value - 310) / 100:.2f}", f"{value / 10 + 1:.1f}"]


# The gold, another right form of it, and three wrong answers.
LATEX = [
    (r"\frac{A\sqrt{B}}{C}", r"\frac{A}{C}\sqrt{B}", r"\frac{D\sqrt{B}}{C}", r"A\sqrt{B}", r"\frac{A}{C}"),
    ("Ax^2+Bx-C", "Bx+Ax^2-C", "Ax^2-Bx-C", "Ax^2+Bx+C", "Ax^2"),
    (r"\frac{A\pi}{C}", r"\frac{A}{C}\pi", r"\frac{D\pi}{C}", r"A\pi", r"\frac{\pi}{C}"),
    (r"A+B\sqrt{C}", r"B\sqrt{C}+A", r"A-B\sqrt{C}", "D", r"A+\sqrt{C}"),
    (r"\frac{A}{x+C}", "A/(C+x)", r"\frac{A}{x-C}", r"\frac{x}{C}", r"\frac{A}{x}"),
]


def latex(draw: random.Random) -> tuple[str, list[str]]:
    a = draw.randint(2, 60)
    values = {"A": a, "B": draw.choice([2, 3, 5, 6, 7]), "C": draw.randint(2, 40), "D": a + draw.randint(1, 9)}
    answers = list(draw.choice(LATEX))
    for letter, value in values.items():
        answers = [answer.replace(letter, str(value)) for answer in answers]
    return answers[0], answers


KINDS = {"integers": integers, "decimals": decimals, "latex": latex}


def batch_of(kind: str, num_prompts: int, group_size: int, seed: str) -> tuple[list, list[str]]:
    """Completions as chat messages, which is all that TRL's function takes, and golds, one a completion."""
    draw = random.Random(seed)
    completions, golds = [], []
    for _ in range(num_prompts):
        gold, answers = KINDS[kind](draw)
        for _ in range(group_size):
            answer = draw.choice(answers[:2] if draw.random() < 0.5 else answers[2:])
            text = "".join(THINKING.format(*(draw.randint(2, 99) for _ in range(3))) for _ in range(2))
            completions.append([{"role": "assistant", "content": text + rf"The answer is $\boxed{{{answer}}}$."}])
            golds.append(gold)
    return completions, golds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = num_cores()
    print(
        f"{arguments.prompts} golds x {arguments.group_size} completions, median of {arguments.repeats}, {cores} cores"
    )
    table = {}
    for kind in KINDS:
        theirs, ours = measure(kind, arguments.prompts, arguments.group_size, arguments.repeats)
        table[kind] = {"trl_per_s": theirs, "ours_per_s": ours, "ratio": ours / theirs}
        print(
            f"{kind:9} TRL {theirs:8.0f} /s   ours {ours:8.0f} /s   ratio {ours / theirs:6.1f}   rewards equal",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": cores, **table}, indent=2) + "\n")


def measure(kind: str, num_prompts: int, group_size: int, repeats: int) -> tuple[float, float]:
    """Median completions a second of TRL's function and of ours."""
    rates: dict[str, list[float]] = {"trl": [], "ours": []}
    for repeat in range(-1, repeats):  # the first starts workers and fills sympy's own tables, in both
        completions, golds = batch_of(kind, num_prompts, group_size, f"{kind}/{repeat}")
        started = time.perf_counter()
        theirs = accuracy_reward(completions, [f"${gold}$" for gold in golds])
        between = time.perf_counter()
        ours = math_accuracy(completions, golds)
        ended = time.perf_counter()
        if theirs != ours:
            place = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
            text = completions[place][0]["content"][-60:]
            raise SystemExit(f"{kind}: TRL {theirs[place]}, ours {ours[place]} for {text!r}, gold {golds[place]}")
        if repeat >= 0:
            rates["trl"].append(len(golds) / (between - started))
            rates["ours"].append(len(golds) / (ended - between))
    return statistics.median(rates["trl"]), statistics.median(rates["ours"])


if __name__ == "__main__":
    main()
