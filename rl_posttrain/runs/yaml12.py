"""YAML as recipes have it: the numbers, booleans and nulls of YAML 1.2, no key twice, and plain data alone.

PyYAML reads YAML 1.1, in which `1:30` is 90, `010` is 8, `no` is false and `1e-5` is a text. Here the first three are
texts and the last is a number, as YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema) has them, but
that a whole number has no leading zero: `010` is 8 to some programs and 10 to others.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

_PREFIX = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_KINDS = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT, "merge": re.compile("<<")}
# Far more than a recipe has. Aliases of aliases can stand for more values than there is memory for.
_MOST_VALUES = 100_000
_DEEPEST = 50
_MOST_DIGITS = 400


_TOO_DEEP = f"more than {_DEEPEST} lists and mappings stand inside of each other"


class YamlError(ValueError):
    """A text that is not such YAML; one line, with the number of its line where that is known."""


class _Composer(yaml.SafeLoader):
    """PyYAML's reading of the syntax, with YAML 1.2's rules of what is a number."""

    def resolve(self, kind: type, value: str, implicit: Any) -> str:
        """The tag of a node that has none."""
        if kind is yaml.ScalarNode and implicit[0]:
            found = (name for name, pattern in _KINDS.items() if pattern.fullmatch(value))
            return _PREFIX + next(found, "str")
        return super().resolve(kind, value, (False, True))


class _Dumper(yaml.SafeDumper):
    """YAML with lists of single values on one line, such as ``betas: [0.9, 0.95]``.

    A text is quoted where YAML 1.1 or 1.2 would read it as something else: other programs read these files, too.
    """

    def represent_list(self, data: list) -> yaml.Node:
        """A list, on one line if it has neither lists nor mappings."""
        single = not any(isinstance(value, (list, dict)) for value in data)
        return self.represent_sequence(f"{_PREFIX}seq", data, flow_style=single)

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out: nothing is written as an alias."""
        return True


_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_implicit_resolver(f"{_PREFIX}int", re.compile(f"(?:{_INT.pattern})$"), list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{_PREFIX}float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The value of one YAML document: mappings with texts as keys, lists, texts, numbers, booleans and None.

    Raises:
        YamlError: the text is not YAML, a mapping has a key twice, or there is something else than plain data.
    """
    try:
        node = yaml.compose(text, Loader=_Composer)
        return None if node is None else _Reader().value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(where + " ".join(filter(None, (error.context, error.problem)))) from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError(_TOO_DEEP) from None


def write_yaml(data: Any, *, on_one_line: bool = False) -> str:
    """YAML that `read_yaml` reads as the same data, with the keys in their order."""
    if not on_one_line:
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    text = yaml.dump(data, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()  # YAML marks the end of a single value


class _Reader:
    """From nodes to values."""

    def __init__(self) -> None:
        self._count = 0

    def value(self, node: yaml.Node, inside: tuple[yaml.Node, ...]) -> Any:
        """The value of a node.

        Args:
            inside: the nodes that hold it.
        """
        self._count += 1
        if self._count > _MOST_VALUES:
            raise YamlError(f"it has more than {_MOST_VALUES:,} values")
        if any(node is one for one in inside):
            raise YamlError(f"{_line(node)}: an alias stands inside of what it means")
        if len(inside) > _DEEPEST:
            raise YamlError(_TOO_DEEP)
        kind = node.tag.removeprefix(_PREFIX)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, kind)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(child, (*inside, node)) for child in node.value]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, (*inside, node))
        raise _no_plain_data(node)

    def _mapping(self, node: yaml.MappingNode, inside: tuple[yaml.Node, ...]) -> dict[str, Any]:
        own, merged = {}, {}
        lines: dict[Hashable, str] = {}
        for key_node, value_node in node.value:
            is_merge = key_node.tag == f"{_PREFIX}merge"
            key = "<<" if is_merge else _key(key_node)
            if key in lines:
                raise YamlError(f"the key {key} stands twice, on {lines[key]} and {_line(key_node)}")
            lines[key] = _line(key_node)
            value = self.value(value_node, inside)
            if not is_merge:
                own[key] = value
                continue
            for mapping in value if isinstance(value, list) else [value]:
                if not isinstance(mapping, dict):
                    raise YamlError(f"{_line(key_node)}: << takes in a mapping or a list of them")
                merged = mapping | merged
        return merged | own


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise YamlError(f"{_line(node)}: a key is one text")
    key = _scalar(node, node.tag.removeprefix(_PREFIX))
    if not isinstance(key, str):
        raise YamlError(f"{_line(node)}: the key {node.value or 'null'} is no text without quotes")
    return key


def _scalar(node: yaml.ScalarNode, kind: str) -> Any:
    text = node.value
    if kind == "str":
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise YamlError(f"{_line(node)}: a text with half of a surrogate pair")
        return text
    if kind not in ("null", "bool", "int", "float"):
        raise _no_plain_data(node)
    if not (_KINDS[kind].fullmatch(text) or (kind == "float" and _INT.fullmatch(text))):
        raise YamlError(f"{_line(node)}: {text[:40]!r} is no {kind} of YAML 1.2")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if len(text) > _MOST_DIGITS:
        raise YamlError(f"{_line(node)}: a number of more than {_MOST_DIGITS} digits")
    if kind == "int":
        return int(text, 0)
    # Python's names of these two have no dot.
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


def _no_plain_data(node: yaml.Node) -> YamlError:
    return YamlError(f"{_line(node)}: the tag {node.tag[:80]} is none of plain data")


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
