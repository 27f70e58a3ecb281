"""Recipes with anything in them: each loads, or is refused in one line."""

import copy

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_recipe import MINIMAL, every_key

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import derive_sizes

KEYS = [key for key, _ in every_key(Recipe)] + [*Recipe.model_fields, "extends", "task.digits", "trl.top_k", "x", ""]
# Values of YAML as they are written, some of forms that few programs expect.
WRITTEN = [
    "",
    "~",
    "true",
    "yes",
    "Off",
    "010",
    "1:30",
    "1e-5",
    "-1",
    "0",
    "1.5",
    ".inf",
    ".nan",
    "1e400",
    "18446744073709551616",
    "[]",
    "{}",
    "[1, 2]",
    "[[1]]",
    "{a: 1}",
    "{a: 1, a: 2}",
    "{1: 2}",
    "[a, {b: c}]",
    "'1'",
    '"a\\nb"',
    '"\\0"',
    '"\\ud800"',
    "&x [*x]",
    "*x",
    "!!set {a}",
    "!!python/name:os.system ''",
    "!!binary aGk=",
    "!!int x",
    "|\n  text\n",
    ">-\n  text\n",
    "? a\n  : b",
    "<<",
    "{<<: {a: 1}}",
    "2026-11-26",
    "0x1F",
    "1_000",
    "$HOME/x",
    "$NO_SUCH_VARIABLE/x",
    "~nobody_here/x",
    "a.py:b",
    "'" + "y" * 5000 + "'",
    "[" * 80,
    "quickstart",
    "grpo",
    "ppo",
    "adams",
    "mixture",
    "file",
    "b\u00e9\u2028\U0001f600",
]
values = st.one_of(
    st.sampled_from(WRITTEN),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ).map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()),
    st.text(max_size=12),
)
changes = st.lists(
    st.tuples(st.sampled_from(KEYS) | st.sampled_from(KEYS) | st.text(max_size=6), values), min_size=1, max_size=3
)


def check_one(tmp_path, said, as_overrides: bool) -> bool:
    """Whether a recipe with these changes loads. If not, the refusal is one line."""
    data, overrides = copy.deepcopy(MINIMAL), []
    text = yaml.safe_dump(data)
    if as_overrides:
        overrides = [f"{key}={value}" for key, value in said]
    else:
        for number, (key, _) in enumerate(said):
            *sections, last = key.split(".")
            node = data
            for section in sections:
                node = node[0] if isinstance(node, list) else node.setdefault(section, {})
                if not isinstance(node, (dict, list)):
                    return False
            if isinstance(node, list):
                node[0] = f"HERE{number}"
            else:
                node[last] = f"HERE{number}"
        text = yaml.safe_dump(data)
        for number, (_, value) in enumerate(said):
            text = text.replace(f"HERE{number}", value)
    path = tmp_path / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        recipe = load_recipe(path, overrides)
        derive_sizes(recipe, 1)
    except RecipeError:  # the door makes one line of it
        return False
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert repr(load_recipe(again)) == repr(recipe)
    return True


def fuzz(tmp_path, examples: int) -> None:
    """Try so many recipes; some of them load."""
    loaded = []

    @hypothesis.settings(max_examples=examples, suppress_health_check=list(hypothesis.HealthCheck))
    @given(changes, st.booleans())
    def try_one(said, as_overrides):
        loaded.append(check_one(tmp_path, said, as_overrides))

    try_one()
    assert 0 < sum(loaded) < len(loaded)


def test_three_hundred_recipes_load_or_are_refused_in_one_line(tmp_path):
    fuzz(tmp_path, 300)


@pytest.mark.long
def test_two_thousand_recipes_load_or_are_refused_in_one_line(tmp_path):
    fuzz(tmp_path, 2000)
