"""Recipes: the schema of the YAML file, loading it, checking it, and resolving it into frozen specs.

Nothing here runs a recipe.
"""
