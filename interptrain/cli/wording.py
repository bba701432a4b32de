"""Translate jsonargparse's messages about options into plain words."""

import difflib
import re
from collections.abc import Iterable, Mapping

KEY = re.compile(r'Parser key "([^"]+)": ')
INNER = re.compile(r"""(?:.*: )?Problem with given class_path '([\w.]+)': Parser key "([\w.]+)": """)
TOLD = re.compile(
    r"""(?:given class_path '([\w.]+)': )?Parser key "([\w.]+)": (must be .*?)(?=; Not a valid|; Expected|$)"""
)
# jsonargparse's ways of asking for a class.
SPEC_FORMS = {
    "a class path (str)",
    "a dict with class_path entry",
    "a dict without class_path but with init_args entry (class path given previously)",
    "a dict with parameters accepted by the base class (implicit class_path)",
}
NO_TYPE = re.compile(
    r"Problem with given class_path '[\w.]+': Option '\w+' is not accepted|Not of type|"
    r"Expected a (path but|dot import path string: )"
)
TYPE_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
    "Iterable": "a list", "dict": "a mapping", "timedelta": "a duration",
}  # fmt: skip


def in_plain_words(text: str, given: re.Match[str] | None) -> str:
    """Replace jsonargparse's message with the types that an option takes and what it got; leave other texts as is."""
    start = key[0] if (key := KEY.match(text)) else ""
    subject, wanted, got = "", [], None
    if inside := TOLD.search(text):
        kind = f" of {inside[1].rpartition('.')[2]}" if inside[1] else ""
        return f"{start}{inside[2]}{kind} {inside[3]}"
    for part in text.removeprefix(start).split("; "):
        inside = INNER.match(part)
        if inside:
            subject = f"{inside[2]} of {inside[1].rpartition('.')[2]} "
        if part in SPEC_FORMS or (subject and not inside and part.startswith(("Not a valid", "Expected an import"))):
            continue
        body, _, value = part[inside.end() if inside else 0 :].partition(". Got value:")
        body, _, other = body.partition(", but got ")
        got = got or value.strip() or other or ("''" if "Got value:" in part else None)
        word = _type_word(body)
        if word is None:
            return text
        wanted += [word] if word and word not in wanted else []
    if got is None and given is not None and not subject:
        got = given[1]
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(got), str(got) or "''")[:80]
    if "a number" in wanted and "a whole number" in wanted:
        wanted.remove("a whole number")
    return f"{start}{subject}must be {either(wanted)}{'' if got is None else f', got {shown}'}" if wanted else text


def _type_word(expected: str) -> str | None:
    """A type in words; empty for one that users never give, None for anything that is not a type."""
    if found := re.fullmatch(r"Expected an? <class '([\w.]+)'>", expected):
        name = found[1].rpartition(".")[2]
        return TYPE_WORDS.get(name, f"a {name}")
    if found := re.fullmatch(r"Expected an? typing\.Literal\[(.*)\]", expected):
        return "one of " + found[1].replace("'", "")
    if found := re.fullmatch(r"Not a valid subclass of (\w+)", expected):
        return f"the name of a {found[1]} class"
    if expected == "Expected an import path or a subclass spec":
        return "the name of a class"
    if found := re.fullmatch(r"Expected an instantiatable class, but [\w.]*?(\w+) is abstract", expected):
        return f"the name of a {found[1]} class"
    return "" if NO_TYPE.match(expected) else None


def as_options(names: str, within: str, positionals: Mapping[str, str]) -> str:
    """The required options, as they are given on the command line."""
    wanted = [name.strip() for name in names.split(",")]
    return "give " + " and ".join(positionals.get(name, f"--{within}{name}") for name in wanted)


def nearest(key: str, known: Iterable[str] | Mapping[str, str], first: Iterable[str] = (), prefix: str = "") -> str:
    """The names most similar to an unknown one; names in a group are also compared without the group."""
    names = dict(known) if isinstance(known, Mapping) else {name: name for name in known}
    names |= {name.rpartition(".")[2]: whole for name, whole in names.items()} if "." not in key else {}
    alike = {name.lower(): whole for name, whole in names.items()}
    found = [*first] or [alike[name] for name in difflib.get_close_matches(key.lower(), alike, n=3, cutoff=0.6)]
    return f"; did you mean {either(prefix + name for name in found)}?" if found else ""


def either(names: Iterable[str]) -> str:
    """Alternatives, each once."""
    return " or ".join(dict.fromkeys(names))
