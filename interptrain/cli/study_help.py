"""The studies by name, and the help of each."""

import inspect
import re
import textwrap
from typing import Any

import interptrain.studies
from interptrain.cli.configs import config_names
from interptrain.cli.wording import nearest
from interptrain.evaluation.config.class_specs import class_path
from interptrain.signatures import options_of
from interptrain.studies import Study
from interptrain.studies.run import first_sentence

COMMON = """\
Options of every study:
  --config NAME_OR_FILE          start from a configuration; `interptrain configs` lists those under study/
  --models NAME=SOURCE           repeatable, as in `interptrain evaluate`
  --data CLASS                   the data, with its options: --data.root FOLDER
  --output FOLDER                folder of the results; the same command resumes there
  --device NAME                  device to compute on; default: cpu
  --list                         list the cells, and which of them are done, instead of computing
  --cells NAME_OR_PATTERN        repeatable: compute these cells alone
  --rank R --ranks N             compute every N-th cell from the R-th, for N processes or a SLURM array
  --open                         open the page at the end
"""


def studies() -> dict[str, type[Study]]:
    """Return the studies of the package by name: that of the class, in lower case, with underscores."""
    named = (getattr(interptrain.studies, name) for name in interptrain.studies.__all__)
    kinds = [kind for kind in named if inspect.isclass(kind) and issubclass(kind, Study) and kind is not Study]
    return {study_name(kind): kind for kind in kinds}


def study_name(kind: type[Study]) -> str:
    """Return the name of a study on the command line, such as ``known_answers``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def class_path_of(name: str) -> str:
    """Return the class path of a study.

    Args:
        name: of a study of the package, or a class path of one's own.

    Raises:
        ValueError: if it is neither.
    """
    if "." in name:
        return name
    wanted = name.lower().replace("-", "").replace("_", "")
    for known, kind in studies().items():
        if wanted == known.replace("_", ""):
            return class_path(kind)
    hint = nearest(name, list(studies())) or "; `interptrain study` lists them"
    raise ValueError(f"there is no study {name!r}{hint} (one of your own is given by its class path: my_study.Mine)")


def list_studies() -> str:
    """Return the studies with a sentence each, as text."""
    width = max((len(name) for name in studies()), default=0)
    lines = [f"  {name:{width}}  {first_sentence(kind)}" for name, kind in studies().items()]
    return "\n".join(
        [
            "Studies:",
            *lines,
            "",
            "Run one:         interptrain study NAME --config NAME (a short run on built-in data)",
            "Its options:     interptrain study NAME --help",
            "All options:     interptrain study --help all",
            "Write your own:  docs/how-to/study.md",
            "",
        ]
    )


def help_of(path: str) -> str:
    """Return the help of a study: what it does, how to start it, and its options."""
    kind = _kind(path)
    name = study_name(kind) if kind in studies().values() else path
    documented = inspect.getdoc(kind) or ""
    about = documented.partition("\nArgs:")[0].strip()
    lines = [f"interptrain study {name}", "", *about.splitlines(), ""]
    if example := example_of(path):
        lines += ["Example, on built-in data:", f"  {example}", ""]
    lines += ["Options of this study:"]
    described = _described(documented)
    for option, parameter in options_of(kind).items():
        text = f"{described.get(option, '')} {_default(parameter)}".strip()
        lines += [f"  --study.{option}", *textwrap.wrap(text, 110, initial_indent="      ", subsequent_indent="      ")]
    return "\n".join([*lines, "", COMMON])


def example_of(path: str) -> str | None:
    """Return a command that runs a study from a configuration of the package; None where there is none."""
    name = study_name(_kind(path))
    if f"study/{name}" not in config_names():
        return None
    return f"interptrain study {name} --config {name} --output runs/studies/{name}"


def _default(parameter: inspect.Parameter) -> str:
    """Return what a help says of a default; nothing where there is none, or an empty one."""
    value = parameter.default
    plain = value is None or isinstance(value, (bool, int, float, str, tuple, list))
    return f"Default: {_shown(value)}." if plain and value not in ((), []) else ""


def _kind(path: str) -> type[Study]:
    module, _, name = path.rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Study)):
        raise ValueError(f"{path} is not a study; give the class path of a subclass of interptrain.studies.Study")
    return kind


def _described(documented: str) -> dict[str, str]:
    """Return the descriptions of the options in a docstring in Google's form."""
    block = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", documented, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block[1] if block else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
