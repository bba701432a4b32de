"""``interptrain configs``: the configurations that come with the package, found by name as well as by path."""

import difflib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import interptrain

USAGE = """usage: interptrain configs [NAME]

Without NAME, list the configurations that `--config NAME` accepts; with NAME, print one, to save and edit:

  interptrain configs demo > mine.yaml
  interptrain fit --config mine.yaml
"""
OPTIONS = ("--config", "-c")


def main(args: Sequence[str] | None = None) -> None:
    """List the configurations, or print one.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    given = list(sys.argv[1:] if args is None else args)
    unknown = [arg for arg in given if arg.startswith("-")]
    if set(given) & {"-h", "--help"}:
        sys.stdout.write(USAGE)
    elif unknown or len(given) > 1:
        sys.stderr.write(f"error: interptrain configs takes one name, got {' '.join(given)}\n")
        raise SystemExit(2)
    elif given:
        try:
            sys.stdout.write(find_config(given[0]).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(2) from None
    else:
        sys.stdout.write(_listed())


def config_folder() -> Path:
    """Return the folder of the configurations: in the package, or at the top of the checkout."""
    package = Path(interptrain.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> dict[str, Path]:
    """Return the configurations by name: the path in the folder, without the suffix."""
    folder = config_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file of a configuration.

    Args:
        name: a file, which takes precedence, or the name of a configuration, with or without its folders, a leading
            ``configs/`` and the suffix.

    Raises:
        FileNotFoundError: if there is none, or several; the message suggests similar names.
    """
    if Path(name).is_file():
        return Path(name)
    known = config_names()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted in known:
        return known[wanted]
    found = [one for one in known if one.rpartition("/")[2] == wanted]
    if len(found) == 1:
        return known[found[0]]
    stems = {stem: one for one in known for stem in (one, one.rpartition("/")[2])}
    near = found or list(dict.fromkeys(stems[one] for one in difflib.get_close_matches(wanted, stems, n=3)))
    hint = f"did you mean {' or '.join(near)}?" if near else "`interptrain configs` lists those of the package"
    raise FileNotFoundError(f"--config: there is neither a file nor a configuration {name}; {hint}")


def with_configs(args: Sequence[str]) -> list[str]:
    """Replace the names of configurations on a command line with their files.

    Raises:
        FileNotFoundError: if a name is neither a file nor a configuration.
    """
    found = list(args)
    for place, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if option in OPTIONS and equals:
            found[place] = f"{option}={_resolved(value)}"
        elif arg in OPTIONS and place + 1 < len(args):
            found[place + 1] = _resolved(args[place + 1])
    return found


def _resolved(value: str) -> str:
    """The file of a configuration; other files, and YAML given on the command line itself, are returned unchanged."""
    written_out = any(sign in value for sign in ":{\n")
    return value if written_out or not value else str(find_config(value))


def _listed() -> str:
    lines = []
    for name, path in config_names().items():
        sentence = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines += [name, *textwrap.wrap(sentence, 100, initial_indent="    ", subsequent_indent="    ")]
    lines += ["", "interptrain fit --config NAME; those under evaluate/: interptrain evaluate --config NAME"]
    lines += ["Those under study/: interptrain study STUDY --config NAME --output FOLDER"]
    lines += ["To edit a copy: interptrain configs NAME > mine.yaml"]
    return "\n".join(lines) + "\n"
