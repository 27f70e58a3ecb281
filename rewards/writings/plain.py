"""The plainest writing of a gold: what a model most likely puts into its box."""

import re

from rl_posttrain.rewards.writings.groups import flat
from rl_posttrain.rewards.writings.measures import plain_amount, quantity_parts
from rl_posttrain.rewards.writings.numbers import decimal_of, value_of
from rl_posttrain.rewards.writings.shapes import PERCENT, bare, shape_of
from rl_posttrain.rewards.writings.text import NUMBER, plain_number
from rl_posttrain.rewards.writings.words import letter_of, word_of

_IN_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox)\s*\{([^{}]*)\}")
_MARK = re.compile(r".*(####|\\boxed\s*\{)(.*)", re.DOTALL)
_LEAD_IN = re.compile(r"(?:the )?(?:final )?answer(?: is|:)\s*(.+)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_WORDS_OF_A_SENTENCE = 6
_WITH_A_NOTE = re.compile(rf"(-?{NUMBER})\s*\([A-Za-z ]+\)")


def plain_text(gold: str) -> str:
    r"""A gold without the dollar signs, the font and the unit around it; a number as digits or as one fraction.

    Such as 5 for ``$\$5$``, 15 for ``15\text{ cm}^2``, B for ``\textbf{(B)}`` and 12345 for ``12{,}345``. Of a solution
    with ``####`` or a box, what the mark holds; of a sentence, its last number. Another gold of no known shape stays.
    """
    gold = bare(gold)
    if marked := _MARK.fullmatch(gold):
        line = marked[2].strip().partition("\n")[0]
        return plain_text(_to_closing_brace(marked[2]) if marked[1] != "####" else line)
    if said := _LEAD_IN.fullmatch(gold):
        return plain_text(said[1])
    shape = shape_of(gold) if gold else "other"
    if shape == "choice":
        return letter_of(gold)
    if shape == "word":
        return word_of(gold)
    if shape == "percent":
        return rf"{plain_number(PERCENT.fullmatch(gold)[1])}\%"
    if shape == "money":
        return plain_amount(gold)
    if shape == "quantity":
        return plain_text(quantity_parts(gold)[0])
    if shape == "time":
        return " ".join(_IN_TEXT.sub(r"\1", gold).split())
    if (value := value_of(gold)) is not None:
        whole_or_decimal = decimal_of(value)
        if shape != "fraction" and whole_or_decimal is not None:
            return whole_or_decimal
        return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    if (noted := _WITH_A_NOTE.fullmatch(gold)) is not None:
        return plain_number(noted[1])
    if shape == "other" and len(_WORD.findall(gold)) >= _WORDS_OF_A_SENTENCE and (numbers := re.findall(NUMBER, gold)):
        return plain_number(numbers[-1])
    whole = _IN_TEXT.fullmatch(gold)
    return plain_text(whole[1]) if whole and whole[1].strip() else flat(gold)


def _to_closing_brace(text: str) -> str:
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:place]
    return text
