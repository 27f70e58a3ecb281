"""Answers judged per second, by math_accuracy and by trl.rewards.accuracy_reward on the same inputs.

    python experiments/speed/rewards.py [--prompts 64] [--group-size 8] [--repeats 5] [--families roots,sets]
        [--json FILE]

Batches are as in GRPO: `group-size` completions for each gold, of about 600 characters, each with a boxed answer at its
end. Half of the answers are right; the wrong ones come from a small set. Both functions get the same batches, one after
the other in turn, and each batch once, so that no verdict is cached. The ratio is the median of the batches' ratios.
The command fails if the rewards differ. First it times the worst that a batch can hold: answers that never end.
"""

import argparse
import json
import random
import statistics
import time
from functools import partial
from pathlib import Path

from trl.rewards import accuracy_reward

from rl_posttrain.machine.process import num_cores
from rl_posttrain.rewards import math_accuracy
from rl_posttrain.rewards.accuracy import judge

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


# By family: the gold, another right form of it, and three wrong answers.
LATEX = {
    "roots": [
        (r"\frac{A\sqrt{B}}{C}", r"\frac{A}{C}\sqrt{B}", r"\frac{D\sqrt{B}}{C}", r"A\sqrt{B}", r"\frac{A}{C}"),
        (r"A+B\sqrt{C}", r"B\sqrt{C}+A", r"A-B\sqrt{C}", "D", r"A+\sqrt{C}"),
    ],
    "fraction and root": [
        (
            r"\frac{A}{C}+\sqrt{B}",
            r"\sqrt{B}+\frac{A}{C}",
            r"\frac{A}{C}-\sqrt{B}",
            r"\frac{D}{C}+\sqrt{B}",
            r"\frac{A}{C}",
        )
    ],
    "polynomials": [
        ("Ax^2+Bx-C", "Bx+Ax^2-C", "Ax^2-Bx-C", "Ax^2+Bx+C", "Ax^2"),
        (r"\frac{A}{x+C}", "A/(C+x)", r"\frac{A}{x-C}", r"\frac{x}{C}", r"\frac{A}{x}"),
    ],
    "multiples of pi": [(r"\frac{A\pi}{C}", r"\frac{A}{C}\pi", r"\frac{D\pi}{C}", r"A\pi", r"\frac{\pi}{C}")],
    "trigonometry": [(r"A\sin(Bx)+C", r"C+A\sin(Bx)", r"A\cos(Bx)+C", r"D\sin(Bx)+C", r"A\sin(Bx)-C")],
    "equations": [("y=Ax+B", "y=B+Ax", "y=Ax-B", "y=Dx+B", "y=Ax")],
    "intervals": [
        (
            r"\left(-A,\frac{B}{C}\right]",
            r"(-A,\frac{B}{C}]",
            r"[-A,\frac{B}{C}]",
            r"(-D,\frac{B}{C}]",
            r"(-A,\frac{B}{C})",
        )
    ],
    "matrices": [
        (
            r"\begin{pmatrix}A&B\\-C&D\end{pmatrix}",
            r"\begin{bmatrix}A&B\\-C&D\end{bmatrix}",
            r"\begin{pmatrix}A&-C\\B&D\end{pmatrix}",
            r"\begin{pmatrix}A&B\\C&D\end{pmatrix}",
            r"\begin{pmatrix}A&B\\-C&A\end{pmatrix}",
        )
    ],
    "sets": [
        (
            r"\{A,\sqrt{B},-C\}",
            r"\{\sqrt{B},-C,A\}",
            r"\{D,\sqrt{B},-C\}",
            r"\{A,\sqrt{B}\}",
            r"\{A,-\sqrt{B},-C\}",
        )
    ],
}


def latex(family: str, draw: random.Random) -> tuple[str, list[str]]:
    a = draw.randint(2, 60)
    values = {"A": a, "B": draw.choice([2, 3, 5, 6, 7]), "C": draw.randint(2, 40), "D": a + draw.randint(1, 9)}
    answers = list(draw.choice(LATEX[family]))
    for letter, value in values.items():
        answers = [answer.replace(letter, str(value)) for answer in answers]
    return answers[0], answers


FAMILIES = {"integers": integers, "decimals": decimals} | {name: partial(latex, name) for name in LATEX}


def batch_of(family: str, num_prompts: int, group_size: int, seed: str) -> tuple[list, list[str]]:
    """Completions as chat messages, which is all that TRL's function takes, and golds, one a completion."""
    draw = random.Random(seed)
    completions, golds = [], []
    for _ in range(num_prompts):
        gold, answers = FAMILIES[family](draw)
        for _ in range(group_size):
            answer = draw.choice(answers[:2] if draw.random() < 0.5 else answers[2:])
            text = "".join(THINKING.format(*(draw.randint(2, 99) for _ in range(3))) for _ in range(2))
            completions.append([{"role": "assistant", "content": text + rf"The answer is $\boxed{{{answer}}}$."}])
            golds.append(gold)
    return completions, golds


def measure(family: str, num_prompts: int, group_size: int, repeats: int) -> dict[str, float]:
    """Medians over the batches: completions a second of TRL's function and of ours, and the ratio."""
    theirs_s, ours_s = [], []
    for repeat in range(-1, repeats):  # the first starts workers and fills sympy's own tables, in both
        completions, golds = batch_of(family, num_prompts, group_size, f"{family}/{repeat}")
        started = time.perf_counter()
        theirs = accuracy_reward(completions, [f"${gold}$" for gold in golds])
        between = time.perf_counter()
        ours = math_accuracy(completions, golds)
        ended = time.perf_counter()
        if theirs != ours:
            place = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
            text = completions[place][0]["content"][-60:]
            raise SystemExit(f"{family}: TRL {theirs[place]}, ours {ours[place]} for {text!r}, gold {golds[place]}")
        if repeat >= 0:
            theirs_s.append(between - started)
            ours_s.append(ended - between)
    count = num_prompts * group_size
    return {
        "trl_per_s": statistics.median(count / seconds for seconds in theirs_s),
        "ours_per_s": statistics.median(count / seconds for seconds in ours_s),
        "ratio": statistics.median(theirs / ours for theirs, ours in zip(theirs_s, ours_s, strict=True)),
    }


def worst_batch() -> dict[str, float]:
    """Seconds for 63 answers that never end, powers in C code and sums in sympy's, and a right one behind them."""
    powers = [f"({number}^9)^{{9^9}}" for number in range(100, 132)]
    sums = [rf"\sum_{{k=1}}^{{{number}}} k^k x^k" for number in range(9000, 9031)]
    completions = [rf"\boxed{{{text}}}" for text in [*powers, *sums, r"\nabla f+0"]]
    golds = ["x+9"] * len(powers) + [text.replace("k", "i") for text in sums] + [r"\nabla f"]
    started = time.perf_counter()
    verdicts = judge(completions, golds)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "timeouts": sum(verdict.decided == "timeout" for verdict in verdicts),
        "right_answer_paid": verdicts[-1].reward,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = num_cores()
    print(
        f"{arguments.prompts} golds x {arguments.group_size} completions, median of {arguments.repeats}, {cores} cores"
    )
    table: dict[str, dict] = {"worst batch, cold": worst_batch(), "worst batch, again": worst_batch()}
    for name, found in table.items():
        paid = "paid" if found["right_answer_paid"] else "not paid"
        print(f"{name}: {found['seconds']:.1f} s, {found['timeouts']} time-outs, right answer {paid}", flush=True)
    for family in arguments.families.split(","):
        found = measure(family, arguments.prompts, arguments.group_size, arguments.repeats)
        table[family] = found
        print(
            f"{family:17} TRL {found['trl_per_s']:6.0f} /s   ours {found['ours_per_s']:7.0f} /s   "
            f"ratio {found['ratio']:5.1f}   rewards equal",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": cores, **table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
