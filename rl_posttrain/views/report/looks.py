"""The look of each variant: a colour and a dash, so that colour-blind readers and black-and-white prints work too."""

from rl_posttrain.runs.picture import COLOURS

# Plotly's name of each dash, and matplotlib's.
DASHES = {"solid": "-", "dash": "--", "dashdot": "-.", "dot": ":", "longdash": (0, (8, 2))}


def look(index: int) -> tuple[str, str]:
    """Colour (#rrggbb) and dash of the variant at `index`. The first 30 are different."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[index % len(COLOURS)]), list(DASHES)[index % len(DASHES)]
