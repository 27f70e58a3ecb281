"""The bundled recipes: YAML files, listed by `rl-posttrain recipes`."""
