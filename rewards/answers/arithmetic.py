"""The part of the parser that belongs to sums, products, powers and brackets."""

from fractions import Fraction

from rl_posttrain.rewards.answers.nodes import Node, is_proper, negative
from rl_posttrain.rewards.answers.tokens import UnreadableError

MAX_DEPTH = 30
CLOSING = {"(": ")", "{": "}", "[": "]", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ENDS = {"", ")", "]", "}", r"\}", r"\rfloor", r"\rceil", ",", "=", r"\choose", r"\to", r"\rightarrow", r"\bmod"}
_DEGREE: Node = ("/", ("const", "pi"), ("num", Fraction(180)))


class Arithmetic:
    """sum = product (("+" | "-") product)*;  product = power (["*" | "/"] power)*;  power = postfix ["^" exponent]."""

    def __init__(self, tokens: list[str]):
        self._tokens = [*tokens, ""]
        self._place = self._depth = self._bars = self._integrals = 0
        self._bound: list[str] = []

    def peek(self, ahead: int = 0) -> str:
        return self._tokens[min(self._place + ahead, len(self._tokens) - 1)]

    def take(self, wanted: str | None = None) -> str:
        token = self._tokens[self._place]
        if wanted is not None and token != wanted:
            raise UnreadableError
        self._place += token != ""
        return token

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError
        node = self._signed()
        while self.peek() in ("+", "-"):
            sign, right = self.take(), self.product()
            node = ("+", node, right if sign == "+" else negative(right))
        self._depth -= 1
        return node

    def _signed(self) -> Node:
        if self.peek() in ("+", "-"):
            sign, node = self.take(), self.product()
            return node if sign == "+" else negative(node)
        return self.product()

    def product(self) -> Node:
        node, divided = self.power(), False
        while not self.ends_product():
            before, sign = self._tokens[self._place - 1], self.peek()
            explicit = sign in ("*", "/", r"\cdot", r"\times")
            if explicit:
                self.take()
                right = self._signed_factor()
            else:
                is_factor = sign in (r"\pi", r"\sqrt", r"\surd") and before[-1].isdecimal()  # 2/3\pi
                if divided and not (is_factor or before.startswith((")", "}"))):
                    raise UnreadableError  # 1/2x
                if sign[0] in "0123456789." and before != "!":
                    raise UnreadableError  # 1 2 and x2
                right = self.power()
                if before[-1].isdecimal() and sign == r"\frac" and is_proper(right) and node[0] == "num":
                    node = ("+", node, right)  # 1\frac{1}{2}
                    continue
            divided = sign == "/"
            node = ("/" if divided else "*", node, right)
        return node

    def ends_product(self) -> bool:
        sign = self.peek()
        if sign in _ENDS or sign in ("+", "-", "^", "_", "!", "'"):
            return True
        if sign == "|":
            return self._bars > 0
        return bool(self._integrals) and sign == "d" and self.peek(1)[:1].isalpha()

    def _signed_factor(self) -> Node:
        if self.peek() == "-":
            self.take()
            return negative(self.power())
        return self.power()

    def power(self) -> Node:
        node = self._postfix(self.atom())
        if self.peek() != "^":
            return node
        self.take()
        if self.peek() in (r"\circ", r"\degree"):
            self.take()
            return ("*", node, _DEGREE)
        node = ("^", node, self.exponent())
        if self.peek() == "^":
            raise UnreadableError  # 2^3^4
        return self._postfix(node)

    def _postfix(self, node: Node) -> Node:
        while True:
            sign = self.peek()
            if sign == "!":
                self.take()
                if self.peek() == "!":
                    raise UnreadableError
                node = ("call", "factorial", node)
            elif sign in ("%", r"\%"):
                self.take()
                node = ("/", node, ("num", Fraction(100)))
            elif sign == r"\degree":
                self.take()
                node = ("*", node, _DEGREE)
            else:
                return node

    def exponent(self) -> Node:
        if self.peek() == "-":
            self.take()
            return negative(self.exponent())
        if self.peek() in ("{", "("):
            return self.group()
        return self.atom()

    def group(self) -> Node:
        opening = self.take()
        bars, self._bars = self._bars, 0
        inner = self.sum()
        if opening == "{" and self.peek() == r"\choose":
            self.take()
            inner = ("call", "binom", inner, self.sum())
        if self.peek() == r"\bmod":
            self.take()
            inner = ("call", "mod", inner, self.sum())
        self._bars = bars
        self.take(CLOSING[opening])
        return inner

    def argument(self) -> Node:
        """What belongs to a command of LaTeX: a group, or one sign; of digits, the first alone."""
        token = self.peek()
        if token == "{":
            return self.group()
        if token[:1].isdecimal():
            self._tokens[self._place : self._place + 1] = list(token) if token.isdecimal() else [token]
            return ("num", Fraction(self.take()))
        if token in ("", "(", "[", ")", "}") or token in ("+", "-", "*", "/", "^", "_"):
            raise UnreadableError
        return self.atom()

    def atom(self) -> Node:
        """A number, a name, a command with its arguments, or brackets."""
        raise NotImplementedError
