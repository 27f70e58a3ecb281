"""The seams of math-verify and of TRL's rewards that rewards/ and scoring/ use."""

import inspect

import trl
from math_verify import LatexExtractionConfig, grader, parse, parser, verify

from rl_posttrain.plugins import load_object
from rl_posttrain.rewards import REWARDS


def names(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_math_verify_can_be_told_to_set_no_time_limit():
    """Its limits are alarms, which work in the main thread alone; worker processes have limits of their own."""
    assert names(parse)[:2] == ["pred", "extraction_config"]
    assert "parsing_timeout" in names(parse)
    assert names(verify)[:2] == ["gold", "target"]
    assert "timeout_seconds" in names(verify)
    found = parse("$x+1$", [LatexExtractionConfig()], parsing_timeout=None)
    assert verify(found, parse("$1+x$", [LatexExtractionConfig()], parsing_timeout=None), timeout_seconds=None)
    assert all(isinstance(value, str) for value in parse("$?$", [LatexExtractionConfig()], parsing_timeout=None))


def test_math_verify_rounds_to_the_decimals_that_our_shortcuts_assume():
    assert inspect.signature(verify).parameters["float_rounding"].default == 6


def test_math_verify_logs_under_the_names_that_we_silence():
    assert (parser.logger.name, grader.logger.name) == ("math_verify.parser", "math_verify.grader")


def test_trls_own_rewards_are_there():
    for built_in in REWARDS.values():
        module = built_in.location.partition(":")[0]
        if module.startswith("trl."):
            assert callable(load_object(built_in.location, table={}, key="fn"))


def test_trl_hands_rewards_the_arguments_that_ours_take():
    source = inspect.getsource(trl.GRPOTrainer._calculate_rewards)
    for argument in ("trainer_state", "log_extra", "log_metric"):
        assert f'reward_kwargs["{argument}"]' in source
