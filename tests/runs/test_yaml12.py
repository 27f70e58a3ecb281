"""YAML of recipes: what is a number, keys that stand twice, and that whatever is written is read as the same."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rl_posttrain.runs.yaml12 import YamlError, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The examples of https://yaml.org/spec/1.2.2/#1032-tag-resolution, but for those with a leading zero.
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *(("0", 0), ("0o7", 7), ("0x3A", 58), ("-19", -19), ("+12", 12)),
        *(("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0)),
        *((".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf)),
        *(("1e-5", 1e-5), ("1.0e-6", 1e-6), ("3E4", 3e4)),
        # Numbers, booleans, times and dates of YAML 1.1 alone.
        *((text, text) for text in ("010", "-07", "1:30", "190:20:30", "1_000", "0b1010", "2026-11-26", "01.5")),
        *((text, text) for text in ("yes", "Yes", "no", "NO", "on", "off", "y", "n", "=", "nUll", "tRue")),
        *((f"'{text}'", text) for text in ("1", "true", "null", "1e-5")),
        ("{a: &shared {x: 1, y: 2}, b: {<<: *shared, y: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("{b: {y: 3, <<: [{x: 1}, {x: 2, y: 4, z: 5}]}}", {"b": {"x": 1, "y": 3, "z": 5}}),
    ],
)
def test_single_values_are_those_of_yaml_1_2(text, value):
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_a_number_that_is_none():
    assert math.isnan(read_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\n\na: 3\n", "the key a stands twice, on line 1 and line 4"),
        ("a:\n  lr: 1\n  b: 2\n  'lr': 3\n", "the key lr stands twice, on line 2 and line 4"),
        ("- x: {deep: [{q: 1,\n q: 1}]}", "the key q stands twice, on line 1 and line 2"),
        ("a: &s {x: 1}\nb:\n  <<: *s\n  <<: *s\n", "the key << stands twice, on line 3 and line 4"),
        ("1: x", "line 1: the key 1 is no text without quotes"),
        ("null: x", "line 1: the key null is no text without quotes"),
        ("? [a, b]\n: x", "line 1: a key is one text"),
        ("a: &loop [1, *loop]", "line 1: an alias stands inside of what it means"),
        ("a: 1\nb: !!python/name:os.system ''", "line 2: the tag tag:yaml.org,2002:python/name:os.system is none of p"),
        ("a: !!timestamp 2026-11-26", "line 1: the tag tag:yaml.org,2002:timestamp is none of plain data"),
        ("a: !!binary aGk=", "line 1: the tag tag:yaml.org,2002:binary is none of plain data"),
        ("a: !!set {x}", "line 1: the tag tag:yaml.org,2002:set is none of plain data"),
        ("a: !!int 010", "line 1: '010' is no int of YAML 1.2"),
        ("a: !!float x", "line 1: 'x' is no float of YAML 1.2"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("--- 1\n--- 2\n", "line 2, column 1: expected a single document"),
        ("9" * 5000, "line 1: a number of more than 400 digits"),
        ('"\\ud800"', "line 1: a text with half of a surrogate pair"),
        ("[" * 60 + "]" * 60, "more than 50 lists and mappings stand inside of each other"),
        ("[" * 9000, "more than 50 lists and mappings stand inside of each other"),
        ("{<<: 3}", "line 1: << takes in a mapping or a list of them"),
        ("\x07", "unacceptable character #x0007"),
    ],
)
def test_whatever_else_is_one_line_that_says_where(text, told):
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_aliases_of_aliases_do_not_fill_the_memory():
    doubled = "\n".join(f"a{place}: &a{place} [*a{place - 1}, *a{place - 1}]" for place in range(1, 40))
    with pytest.raises(YamlError, match="more than 100,000 values"):
        read_yaml(f"a0: &a0 x\n{doubled}\n")


# What could be taken for something else, and any text at all.
texts = st.one_of(
    st.from_regex(r"[-+]?[0-9_]{0,3}[.:eEox]?[-+]?[0-9]{0,3}", fullmatch=True),
    st.sampled_from(["yes", "no", "on", "off", "null", "~", "true", "<<", "=", "", " ", "1:30", "1e-5", "2026-11-26"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


@given(values)
def test_what_is_written_is_read_as_the_same(value):
    for on_one_line in (False, True):
        written = write_yaml(value, on_one_line=on_one_line)
        assert repr(read_yaml(written)) == repr(value)
        # Other programs read the recipe of a run, too, and most have YAML 1.1.
        assert repr(yaml.safe_load(written)) == repr(value)
