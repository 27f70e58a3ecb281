"""Whether two models read the same tokens."""

from transformers import AutoTokenizer

from rl_posttrain.errors import RecipeError, one_line
from rl_posttrain.machine.hub import hub
from rl_posttrain.models.find import load_config, resolve_model


def check_same_vocabulary(policy: str, other: str, *, key: str, trust_remote_code: bool = False) -> None:
    """Fail where `other` cannot read what `policy` writes.

    Args:
        policy, other: as for `resolve_model`.
        key: the recipe's key that says `other`.
        trust_remote_code: whether the models' own Python code may run.

    Raises:
        RecipeError: the vocabularies differ in size or in tokens, or the other model cannot be read.
        HubError: the hub does not give one of the models.
    """
    named = (policy, "model.name"), (other, key)
    configs = [load_config(name, key=its_key, trust_remote_code=trust_remote_code) for name, its_key in named]
    sizes = [config.get_text_config().vocab_size for config in configs]
    if sizes[0] != sizes[1]:
        raise RecipeError(
            f"{key}={other}: its vocabulary has {sizes[1]} tokens, and that of {policy} has {sizes[0]}; name a model "
            "of the same family, or leave it out"
        )
    try:
        ours, theirs = (_vocabulary(name, trust_remote_code) for name in (policy, other))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{key}={other}: its tokenizer cannot be loaded ({one_line(error, limit=200)}); save one beside the model"
        ) from error
    if ours != theirs:
        raise RecipeError(
            f"{key}={other}: its tokenizer has other tokens than that of {policy}; name a model of the same family, or "
            "leave it out"
        )


def _vocabulary(name: str, trust_remote_code: bool) -> dict[str, int]:
    location = resolve_model(name)
    with hub(location):
        return AutoTokenizer.from_pretrained(location, trust_remote_code=trust_remote_code).get_vocab()
