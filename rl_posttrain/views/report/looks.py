"""How variants are told apart: by a colour and a dash each, for colour-blind readers and for print."""

from rl_posttrain.runs.picture import COLOURS

# Plotly's names and matplotlib's.
DASHES = {"solid": "-", "dash": "--", "dashdot": "-.", "dot": ":", "longdash": (0, (8, 2))}


def look(index: int) -> tuple[str, str]:
    """Colour (#rrggbb) and dash of the variant at `index`; 30 of them differ."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[index % len(COLOURS)]), list(DASHES)[index % len(DASHES)]
