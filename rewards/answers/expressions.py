"""A parser of mathematical expressions, in LaTeX and as people type them."""

import functools
from fractions import Fraction

from rl_posttrain.rewards.answers.arithmetic import CLOSING, Arithmetic
from rl_posttrain.rewards.answers.nodes import MINUS_ONE, Node, derivative, negative
from rl_posttrain.rewards.answers.tokens import (
    ALIASES,
    BIG,
    DECORATED,
    FUNCTIONS,
    GREEK,
    SEVERAL,
    TRIGONOMETRIC,
    UnreadableError,
    tokens_of,
)

MAX_CHARACTERS = 1_000
MAX_TOKENS = 300  # a sum of so many terms is as many levels deep
# f(2x) is not 2f(x), and g(x) is not gx; h(a+b) and g(h-y) are products.
_APPLIED = set("fgFGP") | {r"\phi", r"\Gamma", r"\zeta", r"\sigma", r"\mu", r"\tau", r"\Phi"}


@functools.lru_cache(maxsize=16384)
def parse(text: str) -> Node | None:
    """The expression that a cleaned text states; None where it is none, or can be read in more than one way."""
    if len(text) > MAX_CHARACTERS or not text.strip():
        return None
    try:
        tokens = tokens_of(text)
        if len(tokens) > MAX_TOKENS:
            return None
        parser = _Parser(tokens)
        node = parser.sum()
        if parser.peek() == r"\choose":
            parser.take()
            node = ("call", "binom", node, parser.sum())
        return Node(node) if parser.peek() == "" else None
    except UnreadableError:
        return None


class _Parser(Arithmetic):
    """Atoms: numbers, names, brackets, and commands with their arguments."""

    def atom(self) -> Node:
        token = self.take()
        if token[:1].isdecimal() or token[:1] == ".":
            return ("num", Fraction(token))
        if token in ("(", "{", "[", r"\lfloor", r"\lceil", r"\{"):
            self._place -= 1
            inner = self.group()
            return ("call", token[1:], inner) if token in (r"\lfloor", r"\lceil") else inner
        if token in ("|", r"\|"):
            self._bars += 1
            inner = self.sum()
            self._bars -= 1
            self.take(token)
            return ("call", "abs", inner)
        if token in ("e", "i") and token not in self._bound:
            return ("const", token)
        if len(token) == 1 and token.isalpha():
            return self._name(token)
        if token[:1] != "\\":
            raise UnreadableError
        return self._command(token, token[1:])

    def _command(self, token: str, name: str) -> Node:
        if name in ("pi", "infty"):
            return ("const", "pi" if name == "pi" else "inf")
        if name in GREEK:
            return self._name(token)
        if name == "frac":
            top, bottom = self.argument(), self.argument()
            return derivative(top, bottom) or ("/", top, bottom)
        if name == "binom":
            return ("call", "binom", self.argument(), self.argument())
        if name in ("sqrt", "surd"):
            return self._root(name)
        if name in FUNCTIONS:
            return self._function(ALIASES.get(name, name))
        if name in SEVERAL:
            return ("call", name, *self._list())
        if name in BIG:
            return self._big(name)
        if name in DECORATED:
            return self._name(token + self._raw())
        if name in ("angle", "triangle"):
            while len(self.peek()) == 1 and self.peek().isalpha():
                token += self.take()
            return ("var", token)
        raise UnreadableError

    def _root(self, name: str) -> Node:
        degree: Node = ("num", Fraction(2))
        if name == "sqrt" and self.peek() == "[":
            degree = self.group()
        if self.peek() == "(":
            return ("root", degree, self.group())
        return ("root", degree, self.atom() if name == "surd" else self.argument())

    def _name(self, name: str) -> Node:
        """A variable with its subscript and primes; f(x) as a function of x."""
        if self.peek() == "_":
            self.take()
            name += "_" + self._raw()
        while self.peek() == "'":
            name += self.take()
        if self.peek() == "(" and (
            name[:1] == "f"
            or (name.strip("'") in _APPLIED and self._is_argument())
            or (self.peek(2) == ")" and self.peek(1)[:1].isalnum())  # x(0), v(t)
        ):
            return ("call", f"of {name}", *self._list())
        return ("var", name)

    def _is_argument(self) -> bool:
        """Whether the brackets that follow hold one term, or a list: g(x) and g(2x), and not g(h - y)."""
        depth = 0
        for ahead in range(1, len(self._tokens)):
            token = self.peek(ahead)
            if token == "" or (token == ")" and depth == 0):
                return True
            depth += (token in CLOSING) - (token in CLOSING.values())
            if token in ("+", "-") and depth == 0 and ahead > 1:
                return False
        return True

    def _raw(self) -> str:
        """The text of an argument that is a name: 1, {n+1}, {AB}."""
        if self.peek() != "{":
            token = self.take()
            if not token.strip("\\").isalnum():
                raise UnreadableError
            return token
        taken, depth = [], 0
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if token == "":
                raise UnreadableError
            if depth == 0:
                return "".join(taken)
            if token not in ("{", "}"):
                taken.append(token)

    def _list(self) -> list[Node]:
        opening = self.take()
        if opening not in ("(", "{", r"\{"):
            raise UnreadableError
        items = [self.sum()]
        while self.peek() == ",":
            self.take()
            items.append(self.sum())
        self.take(CLOSING[opening])
        return items

    def _function(self, name: str) -> Node:
        base, power = None, None
        for _ in range(2):
            if self.peek() == "_" and name == "log" and base is None:
                self.take()
                base = self.argument() if self.peek() != "(" else self.group()
            elif self.peek() == "^" and power is None:
                self.take()
                power = self.exponent()
        if power == MINUS_ONE and name in TRIGONOMETRIC:
            name, power = f"arc{name}", None
        argument = self._function_argument()
        node = ("call", name, argument) if base is None else ("call", "log", argument, base)
        return node if power is None else ("^", node, power)

    def _function_argument(self) -> Node:
        if self.peek() in ("(", "{"):
            return self.group()
        if self.peek() == "[":
            return self.group()
        is_negative = self.peek() == "-"
        if is_negative:
            self.take()
        node = self.power()
        # \sin 2x; not \sin x(1+x), \sin x \cos x, \sin x/2.
        while not self.ends_product() and self._continues_argument(self.peek()):
            node = ("*", node, self.power())
        return negative(node) if is_negative else node

    def _continues_argument(self, sign: str) -> bool:
        return (len(sign) == 1 and sign.isalpha()) or sign == r"\pi" or sign[1:] in GREEK or sign == r"\frac"

    def _big(self, name: str) -> Node:
        low = high = index = None
        for _ in range(2):
            if self.peek() == "_" and low is None:
                self.take()
                index, low = self._lower_bound(name)
            elif self.peek() == "^" and high is None:
                self.take()
                high = self.argument()
        if name.endswith("int"):
            self._integrals += 1
            body = self.sum()
            self._integrals -= 1
            self.take("d")
            index = self._name(self.take())
        else:
            self._bound.append(index[1] if index else "")
            body = self.product()
            self._bound.pop()
        if index is None:
            raise UnreadableError
        return ("big", name, index, low or (), high or (), body)

    def _lower_bound(self, name: str) -> tuple[Node | None, Node]:
        if name.endswith("int"):
            return None, self.argument()
        self.take("{")
        index = self.atom()
        if index == ("const", "i"):
            index = ("var", "i")
        if index[0] != "var" or self.take() not in ("=", r"\to", r"\rightarrow"):
            raise UnreadableError
        low = self.sum()
        self.take("}")
        return index, low
