"""The report's page: one HTML file that works offline and on a phone, made from plain numbers and texts.

Texts and tables are written here, so they can be read without JavaScript; page.js draws the charts from numbers. The
page also shows what models wrote, so every text is escaped, and the page's policy forbids it to load anything.
"""

import datetime
import html
import json
import re
from importlib import resources
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

PLOTLY_JS: str = get_plotlyjs()

_VERDICT_CLASSES = ("good", "bad", "even", "open")
_MISSING = ("", "-", "\N{EN DASH}")
# The parts of the payload that page.js reads; the other parts are written into the page as text.
_NUMBERS = (
    "axes",
    "charts",
    "variants",
    "runs",
    "smoothing",
    "t95",
    "phases",
    "memory",
    "reached",
    "profiles",
    "along",
    "sensitivity",
)
# Characters that browsers ignore, that cannot be encoded, or that turn around or hide the text next to them. Joiners
# are not among them, because scripts and emoji need them; nor are tab and line feed, which are shown.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def render_page(payload: dict[str, Any]) -> str:
    """The whole page as text; write it as UTF-8.

    Args:
        payload: JSON-able values, None where a value is missing. ``title``, ``headline``, ``notices``, ``checks``,
            ``footer``: texts. ``axes``: key to label. ``charts``: ``id`` (a key of the runs' ``y``), ``title``,
            ``unit``, ``note``; where runs of one task alone are drawn, ``task`` (as in the runs) and ``key`` (of the
            ``y``). ``variants``: ``label``, ``colour``, ``dash``. ``runs``: ``name``, ``variant`` (index),
            ``seed``, ``state`` and the lists of ``x`` and ``y`` by key, all of a run of one length. ``smoothing``:
            points. ``t95``: two-sided t by number of runs. ``phases``, ``memory``: bars. ``reached``: ``title``,
            ``note``, and ``stairs`` by axis, of each variant ``x``, ``y``, ``low``, ``high`` or None. ``profiles``:
            so, with ``curves``. ``along``: such charts, with ``id`` and ``margin``. ``sensitivity``: curves
            of tuned keys, as `views.designs.sensitivity_charts` gives them. ``tables``: shown in their order; None for
            one that is not there. ``samples``, ``environment``, ``commands``; of a page that will be written
            again ``written`` (seconds of the epoch) and ``reload_s``. All but ``title`` may be absent.

    Raises:
        ValueError: a number is not finite. JSON has no such numbers; a missing value is None.
    """
    sections = {
        "charts": "Charts",
        **{f"table-{name}": table["title"] for name, table in payload.get("tables", {}).items() if table},
        "samples": "Samples",
        "environment": "Environment",
        "commands": "Commands",
    }
    has_charts = payload.get("charts") or payload.get("phases") or payload.get("memory")
    absent = {key for key in ("samples", "environment", "commands") if not payload.get(key)}
    absent |= set() if has_charts else {"charts"}
    return Template(_file("page.html")).substitute(
        title=_attribute(payload["title"]),
        heading=_text(payload["title"]),
        reload=_reload(payload),
        age=_age(payload),
        css=_file("page.css"),
        nav="".join(
            f'<li><a href="#{_attribute(key)}">{_text(title)}</a></li>'
            for key, title in sections.items()
            if key not in absent
        ),
        summary=_summary(payload),
        charts_hidden="" if has_charts else "hidden",
        tables="".join(_table(f"table-{name}", table) for name, table in payload.get("tables", {}).items() if table),
        samples=_samples(payload.get("samples") or [], payload.get("variants", [])),
        environment=_environment(payload.get("environment") or []),
        commands=_commands(payload.get("commands") or []),
        footer=_text(payload.get("footer", "")),
        data=_json({key: payload[key] for key in _NUMBERS if payload.get(key) is not None}),
        plotly=_script(PLOTLY_JS),
        js=_script(_file("page.js")),
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _text(value: Any) -> str:
    """HTML that shows `value` as it is; characters that nobody would see are shown as their code points."""
    return _UNSEEN.sub(
        lambda found: f'<span class="unseen">U+{ord(found[0]):04X}</span>', html.escape(str(value), quote=True)
    )


def _attribute(value: Any) -> str:
    return html.escape(_UNSEEN.sub(lambda found: f"U+{ord(found[0]):04X}", str(value)), quote=True)


def _script(source: str) -> str:
    """`source` for a script element. Both texts occur in strings alone, where an added backslash changes nothing."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _json(numbers: dict[str, Any]) -> str:
    """JSON for a script element: the characters that mean something in HTML are escaped, and so is all beyond ASCII."""
    text = json.dumps(_short(numbers), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: Any) -> Any:
    """`value` with floats of six digits. A chart cannot show more, and 17 digits would double the size of the page."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value


def _reload(payload: dict[str, Any]) -> str:
    """Lets an open page load itself again where JavaScript is off."""
    seconds = payload.get("reload_s")
    return f'<noscript><meta http-equiv="refresh" content="{seconds:d}"></noscript>' if seconds else ""


def _age(payload: dict[str, Any]) -> str:
    """The line on a page that will be written again; page.js counts in it, and loads the page again."""
    if not payload.get("reload_s"):
        return ""
    made = datetime.datetime.fromtimestamp(payload["written"], datetime.UTC)
    return (
        f'<p class="notices" id="age" data-written="{payload["written"]:.0f}" data-seconds="{payload["reload_s"]:d}">'
        f"Runs go on. This page was written at {made:%H:%M:%S} UTC<output></output>. "
        f'<label class="scripted-only"><input type="checkbox" checked> Load it again every {payload["reload_s"]:d} '
        "seconds</label></p>"
    )


def _summary(payload: dict[str, Any]) -> str:
    headline = "".join(f"<p>{_text(sentence)}</p>" for sentence in payload.get("headline", []))
    notices = "".join(f"<li>{_text(notice)}</li>" for notice in payload.get("notices", []))
    checks = "".join(f"<li>{_text(check)}</li>" for check in payload.get("checks", []))
    return (
        (f'<div class="headline">{headline}</div>' if headline else "")
        + (f'<ul class="notices" aria-label="Notices">{notices}</ul>' if notices else "")
        + (f'<div class="checks"><h2>Pairing checks</h2><ul>{checks}</ul></div>' if checks else "")
    )


def _table(key: str, table: dict[str, Any]) -> str:
    columns, name = table["columns"], _attribute(key)
    head = "".join(
        f'<th scope="col" class="{_attribute(column["kind"])}">{_text(column["label"])}</th>' for column in columns
    )
    body = (
        "".join(
            f"<tr>{''.join(_cell(row.get(column['key']), column, place) for place, column in enumerate(columns))}</tr>"
            for row in table["rows"]
        )
        or f'<tr><td colspan="{len(columns)}">Nothing to show.</td></tr>'
    )
    helps = "".join(
        f"<dt>{_text(column['label'])}</dt><dd>{_text(column['help'])}</dd>" for column in columns if column.get("help")
    )
    return (
        f'<section id="{name}"><h2 id="{name}-title">{_text(table["title"])}</h2>'
        + (f'<p class="note">{_text(table["note"])}</p>' if table.get("note") else "")
        + f'<div class="scroll" role="region" aria-labelledby="{name}-title" tabindex="0">'
        + f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        + (f'<details class="help"><summary>What the columns mean</summary><dl>{helps}</dl></details>' if helps else "")
        + "</section>"
    )


def _cell(cell: Any, column: dict[str, Any], place: int) -> str:
    """One cell. page.js sorts by its ``data-value``; cells without one are missing values and come last."""
    cell = cell if isinstance(cell, dict) else {"text": "" if cell is None else str(cell), "value": cell}
    text, value = str(cell.get("text", "")), cell.get("value")
    value = text if value is None else value
    if column["kind"] == "number":
        value = _number(value)
    missing = value is None or text.strip() in _MISSING
    kind = cell.get("class") if cell.get("class") in _VERDICT_CLASSES else None
    content = "-" if text.strip() in _MISSING else _text(text)
    if kind:
        content = f'<span class="{kind}">{content}</span>'
    attributes = f' class="{_attribute(column["kind"])}"' + ("" if missing else f' data-value="{_attribute(value)}"')
    return f'<th scope="row"{attributes}>{content}</th>' if place == 0 else f"<td{attributes}>{content}</td>"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None


def _samples(samples: list[dict[str, Any]], variants: list[dict[str, Any]]) -> str:
    if not samples:
        return ""
    groups: dict[str, list[str]] = {}
    for sample in samples:
        # An index, as in the runs, or the label itself.
        variant = sample["variant"]
        label = variants[variant]["label"] if isinstance(variant, int) else str(variant)
        groups.setdefault(label, []).append(_sample(sample))
    details = "".join(
        f"<details{'' if place else ' open'}><summary><bdi>{_text(label)}</bdi></summary>{''.join(parts)}</details>"
        for place, (label, parts) in enumerate(groups.items())
    )
    note = "What the models wrote: of each variant its first seed, at its first and its last step."
    return f'<section id="samples"><h2>Samples</h2><p class="note">{note}</p>{details}</section>'


def _sample(sample: dict[str, Any]) -> str:
    seed = "" if sample.get("seed") is None else f"<h3>Seed {_text(sample['seed'])}</h3>"
    return f'{seed}<div class="pair">{_moment("Early", sample.get("early"))}{_moment("Late", sample.get("late"))}</div>'


def _moment(name: str, moment: dict[str, Any] | None) -> str:
    if not moment or not moment.get("rows"):
        return f'<div class="moment"><h4>{name}</h4><p class="note">No sample was recorded.</p></div>'
    rows = "".join(
        f"<article>{_written('Prompt', row.get('prompt'))}{_written('Completion', row.get('completion'))}"
        f'<p class="outcome"><span>answer <bdi>{_text(_or_dash(row.get("answer")))}</bdi></span> '
        f"<span>reward <b>{_text(_or_dash(row.get('reward')))}</b></span></p></article>"
        for row in moment["rows"]
    )
    return f'<div class="moment"><h4>{name}: step {_text(_or_dash(moment.get("step")))}</h4>{rows}</div>'


def _written(name: str, text: Any) -> str:
    return (
        f'<p class="what">{name}</p><pre class="{name.lower()}">'
        f'<bdi dir="auto">{_text("" if text is None else text)}</bdi></pre>'
    )


def _or_dash(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _environment(parts: list[dict[str, Any]]) -> str:
    if not parts:
        return ""
    details = "".join(
        f"<details><summary>{_text(part['name'])}</summary>"
        "<div class='scroll' tabindex='0'><table class='facts'><tbody>"
        + "".join(
            f'<tr><th scope="row">{_text(key)}</th><td>{_text(_or_dash(value))}</td></tr>'
            for key, value in part["rows"]
        )
        + "</tbody></table></div></details>"
        for part in parts
    )
    return f'<section id="environment"><h2>Environment</h2>{details}</section>'


def _commands(commands: list[str]) -> str:
    if not commands:
        return ""
    blocks = "".join(
        f'<div class="command"><pre><code>{_text(command)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
        for command in commands
    )
    return f'<section id="commands"><h2>Commands</h2>{blocks}</section>'
