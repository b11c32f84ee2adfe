"""Typed run configuration: OmegaConf over dataclasses, and named YAML recipes.

The dataclasses that are filled in stand next to the classes that they configure, with their defaults; this package
knows none of them and imports nothing of Longreel's. It turns a schema, a recipe and ``key=value`` overrides into a
checked object.
"""

from configs.loader import ConfigError, load, recipe_names, recipe_text, to_yaml

__all__ = ["ConfigError", "load", "recipe_names", "recipe_text", "to_yaml"]
