"""The English words that stand in, before, between and behind the expressions of a text."""

import re

FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|arcsin|arccos|arctan|gcd|lcm|max|min"
SPACES = {r"\,", r"\;", r"\:", r"\!", r"\ ", r"\cdot", r"\times", r"\approx", r"\left", r"\displaystyle"}
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
# Words behind a number that are no unit of it.
_NO_UNIT = re.sub(
    r"\s+",
    "|",
    """a about above according after again ago all along also altogether always an and any apiece appears are as at
    away back be because becomes been before below both but by can comes corresponds costs could did divided divides
    do does down each earlier either else equal equals even ever every exactly extra few fewer follows for from gave
    gets give gives goes had happens has have he hence her here his holds how however i if in inside instead into is
    it its just later leave leaves left less let lies long made make makes many may means might more much must my
    namely needs neither no nor not now occurs of off old on once only onto or our out over overall pair pairs per
    please plus remain remaining remains represents respectively results same satisfies she should shows since so
    stands still such takes tells than that the their them then there therefore these they this those though through
    thus till times to together too total under until up upon us using very was we were what when where whereas
    which while who whose will with within without works would yes yet yields you your""",
)
COMMON = re.compile(rf"(?:{_NO_UNIT}|one|two|six|ten)", re.IGNORECASE)
_UNIT_WORD = (
    r"(?:[a-z]+|[A-Z]{2,4}|Hz|[kMG]Hz|Pa|kPa|k[WJNV]|m[LAVW]|Celsius|Fahrenheit|Kelvin|Dollars|Euros)"
    r"(?![^\W\u00b2\u00b3])"
)
_POWER = r"(?:\ ?\^\ ?(?:\{-?[0-9]\}|-?[0-9])|[\u00b2\u00b3])?"
# What a number counts: "42 apples", "5 square feet", "60 miles per hour", "7 million dollars", "3:45 pm".
UNIT = re.compile(
    rf"""(?:
      and\ a\ (?:half|third|quarter)(?!\w)(?:\ [a-z]+)?
    | [ap]\.?\ ?m(?:\.(?=\W|$)|(?!\w))
    | (?:{_MONTHS})(?:,?\ [0-9]{{4}})?(?!\w)
    | (?:(?:hundred|thousand|million|billion|trillion|dozen)\ (?!(?:{_NO_UNIT})(?!\w)))?
      (?:(?:square|cubic|sq\.?|cu\.?|degrees?|fluid|nautical|light)\ (?!(?:{_NO_UNIT})(?!\w)))?
      (?!(?:{_NO_UNIT})(?!\w)){_UNIT_WORD}{_POWER}
      (?:(?:\ per\ (?:square\ |cubic\ )?|/){_UNIT_WORD}{_POWER})?
    )""",
    re.VERBOSE,
)
IS_HALF_DAY = re.compile(r"[ap]\.?\ ?m")
# Between two expressions that are one answer, one sum or one list of guesses.
BETWEEN = re.compile(
    r"[\s*_`$]*|[\s*_`$)(]*(?:"
    r"[,;]?\s*(?:and/or|and|or|&)(?:\s+(?:also|maybe|perhaps|possibly|even|about|else)(?!\w))?(?:\s+by)?,?|"
    r"[,;]|(?:out\s+)?of(?:\s+the)?|to|through|thru|times|plus|minus|over|by|mod|modulo|divided\s+by|multiplied\s+by|"
    r"choose|less\s+than|more\s+than|,?\s*(?:\.\.\.|\u2026|"
    r"\\[lc]?dots),?)[\s*_`$)(]*"
)
# Of these, the ones between the items of a list.
LISTS = re.compile(r"[,;&]|(?<!\w)(?:and|or)(?!\w)")
# Before an expression, and a part of it: a date, or a word that changes its value.
BEFORE = re.compile(
    rf"(?:(?<!\w)(?:(?:is|was|are)n['\u2019]t|not|minus|negative|half|half of|twice|double|triple|"
    rf"(?:more|less|fewer|greater|larger|smaller|higher|lower) than|(?:square |cube )?root of|{_MONTHS}|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)\s+)$"
)
# Before a number that only counts steps, or names a thing.
LABEL = re.compile(
    r"(?<!\w)(?:steps?|cases?|equations?|eqs?\.?|figures?|fig\.?|problems?|questions?|examples?|parts?|sections?|"
    r"chapters?|exercises?|pages?|lines?|theorem|lemma|tables?|rules?|methods?|approach|attempt|try|no\.|round|"
    r"version|grade|note|level|q)\s*[(*]*$",
    re.IGNORECASE,
)
# At the start of a sentence, before a comma: "In 2010, 35 people came."
OPENS_CLAUSE = re.compile(
    r"(?<!\w)(?:In|On|At|For|If|When|With|Of|By|From|After|Since|Given|Because|While|As|During)(?: [a-z]+){0,3} ?[$*]*$"
)
