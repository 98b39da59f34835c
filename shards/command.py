"""What every command of ours has in common: its parser, and how it ends.

A user's fault is one line on stderr and exit status 2; a fault of ours keeps its traceback; Ctrl-C is one
line and status 130; a reader that goes away (`| head`) is no error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, NoReturn, get_origin

import jsonargparse
import yaml

from shards.aliases import COMMANDS, SETTINGS, VALUES
from shards.errors import EditVerseError, first_line
from shards.help_pages import HelpAction, HelpLayout
from shards.processes import count_interrupts
from shards.resources import config_file, named_in

EXPECTED = re.compile(r"Expected an? (?:<class '(\w+)'>|typing\.(\S.*?))\. Got value: ")
UNION = re.compile(
    r"Does not validate against any of the Union subtypes; Subtypes: \[(?:typing\.)?(.*?)(?:\.\.\.)?\]; .*"
    r"Given value: (.*)$"
)
LITERAL = re.compile(r"Literal\[([^\]]*)\]")
OURS = ("shards", "curation", "model", "benchmark", "editverse")
# settings that name another configuration file
FILES = ("data.mixture", "parallel.cost", "mixture", "cost", "metrics", "add_metrics", "study", "rows")
LONGEST = 400  # characters of an error's line


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """jsonargparse's, with a short usage, and with types as a person would write them."""

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        """The required words alone, since argparse's own usage names every option and command."""
        options = argparse.Action([], "options", metavar="[options]")
        if any(isinstance(action, argparse._SubParsersAction) for action in actions):
            actions = [options, argparse.Action([], "command", metavar="COMMAND")]
        else:
            self._prog = self._prog.replace(" [options]", "")
            needed = [action for action in actions if action.required or not action.option_strings]
            actions = [*needed, options]
        return super()._format_usage(usage, actions, groups, prefix)

    def _format_action_invocation(self, action: Any) -> str:
        """A switch is shown as it is written: `--flag, --no_flag`."""
        if isinstance(action, HelpAction):
            return action.invocation
        if _is_flag(action):
            name = action.option_strings[-1]
            return f"{name}, --no_{name[2:]}"
        text: str = super()._format_action_invocation(action)
        return text

    def _get_type_str(self, action: Any) -> str | None:
        """`path` for `<class 'Path'>`, and `a | b` for `Literal['a', 'b']`."""
        name = super()._get_type_str(action)
        if name is None or action.choices:
            return name
        name = re.sub(r"<class '(\w+)'>", r"\1", name.replace("typing.", ""))
        name = re.sub(r"Optional\[(.*)\]$", r"\1 | null", name)
        return re.sub(r"\bPath\b", "path", LITERAL.sub(lambda match: _alternatives(match[1]), name))


def _alternatives(values: str) -> str:
    return " | ".join(value.strip().strip("'") for value in values.split(","))


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, whose errors are one line: the file at fault and the nearest key."""

    # Of one command line, whose main parser and subcommands' parsers are objects of their own.
    _files: ClassVar[list[str]] = []  # configuration files in the order of reading
    _reading: ClassVar[list[str]] = []  # those that are being read now

    def __init__(self, *args: Any, add_help: bool = True, **kwargs: Any) -> None:
        """As jsonargparse's, with help in pages (`shards.help_pages`) and no abbreviations.

        An old name may be how a new one begins (`data.flip`).
        """
        options = {"allow_abbrev": False, "formatter_class": HelpFormatter, **kwargs}
        super().__init__(*args, add_help=False, **options)
        self.help_layout = HelpLayout()
        if add_help:
            self.add_argument("-h", "--help", action=HelpAction, help="show this help")

    def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; the function may say how its help is laid out."""
        self.help_layout = getattr(function, "help_layout", self.help_layout)
        return super().add_function_arguments(function, *args, **kwargs)

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, of words in the style of every command of ours, see `in_style`."""
        self._files.clear()
        return super().parse_args(in_style(self, sys.argv[1:] if args is None else args), *more, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; errors name the file."""
        self._files.append(str(path))
        self._reading.append(str(path))
        try:
            return beside(path, super().parse_path(path, *args, **kwargs))
        except (ValueError, RecursionError) as error:  # not UTF-8; nested too deeply
            self.error(first_line(error))
        finally:
            self._reading.pop()

    def _apply_actions(self, cfg: Any, parent_key: str = "", *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, of what a file says: `model: configs/model/nano.yaml` is found from anywhere.

        A section's own file (`--data data.yaml`) names files relative to itself.
        """
        if parent_key and "__path__" in cfg:
            cfg = beside(cfg["__path__"], cfg, parent_key)
        if isinstance(cfg, dict):
            cfg = {k: _packaged(value) if isinstance(value, str) else value for k, value in cfg.items()}
        return super()._apply_actions(cfg, parent_key, *args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; what a dataclass says of its own fields is a user's error too."""
        try:
            return super().instantiate(*args, **kwargs)
        except ValueError as error:
            self.error(str(error), error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error as one line and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = re.search(r"arguments are required: ([a-z_]+)\.", message)
        parsers = parser._subcommands_action._name_parser_map if parser._subcommands_action else {}
        if command and command[1] in parsers:
            message, parser = message.replace(f"{command[1]}.", ""), parsers[command[1]]
        words = explain(message, keys_of(parser))
        file = self._reading[-1] if self._reading else self._file_with(words)
        if file and file not in words:
            words = f"{file}: {words}"
        print(f"error: {words} (see {parser.prog.replace(' [options]', '')} --help)", file=sys.stderr)
        raise SystemExit(2)

    def _file_with(self, words: str) -> str:
        """The last configuration file that sets the key with which `words` begin, "" if none does."""
        key = words.partition(":")[0]
        return next((file for file in reversed(self._files) if _sets(file, key)), "")


def beside(file: Any, values: Any, section: str = "") -> Any:
    """Settings of a configuration file, in which other configuration files are named relative to it.

    Args:
        section: that the file is for, "" for one of a whole command.
    """
    for name in list(values.keys()):
        key = f"{section}.{name}" if section else name
        if {key, key.partition(".")[2]} & {*FILES} and isinstance(values[name], str):  # or of a subcommand
            values[name] = str(named_in(str(file), values[name]))
    return values


def in_style(parser: jsonargparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """A command line as the parser takes it.

    Names may have hyphens for underscores; `--flag` and `--no-flag` stand for `--flag true` and
    `--flag false`; `configs/...` is found from any folder, see `shards.resources`. Where a command takes a
    list, plain words are its members.
    """
    out: list[str] = []
    members: list[str] = []  # of the command's list
    first = 0  # their place in `out`
    for number, word in enumerate(words):
        if word in ("-h", "--help"):  # the next word is not its section: that comes with "="
            out.append("--help=")
            continue
        if not word.startswith("--"):
            commands = parser._subcommands_action._name_parser_map if parser._subcommands_action else {}
            if word not in commands and _takes_list(parser) and not _is_value(parser, words, number):
                first = first if members else len(out)
                members.append(word)
                continue
            parser = commands.get(word, parser)
            out.append(_packaged(word))
            continue
        known = parser._option_string_actions
        name, equals, value = word.partition("=")
        if name not in known:
            name = name.replace("-", "_").replace("__", "--", 1)
        if not equals and _is_flag(known.get(name)):
            following = words[number + 1] if number + 1 < len(words) else ""
            out.append(name if following.lower() in ("true", "false") else f"{name}=true")
        elif not equals and name.startswith("--no_") and _is_flag(known.get(f"--{name[5:]}")):
            out.append(f"--{name[5:]}=false")
        else:
            out.append(f"{name}{equals}{_packaged(value)}" if name in known else word)
    if members:  # one that is written as a list is one
        whole = len(members) == 1 and members[0].startswith("[")
        out.insert(first, members[0] if whole else json.dumps(members))
    return out


def _takes_list(parser: jsonargparse.ArgumentParser) -> bool:
    """Whether a command's own words are the members of a list."""
    own = [action for action in parser._actions if not action.option_strings]
    return any(get_origin(getattr(action, "_typehint", None)) is list for action in own)


def _is_value(parser: jsonargparse.ArgumentParser, words: Sequence[str], number: int) -> bool:
    """Whether a word belongs to the option before it."""
    before = words[number - 1] if number else ""
    if not before.startswith("--") or "=" in before:
        return False
    known = parser._option_string_actions
    name = before if before in known else before.replace("-", "_").replace("__", "--", 1)
    if name.startswith("--no_") and _is_flag(known.get(f"--{name[5:]}")):
        return False
    return not _is_flag(known.get(name)) or words[number].lower() in ("true", "false")


def only_named(commands: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The command that the command line begins with, or all where it begins with none.

    The parsers of commands with a model's or a training's settings take a fifth of a second each to build.
    """
    return {words[0]: commands[words[0]]} if words and words[0] in commands else commands


def _is_flag(action: Any) -> bool:
    return getattr(action, "_typehint", None) is bool


def _packaged(value: str) -> str:
    """The place of a configuration that comes with us."""
    return str(config_file(value)) if value.startswith("configs/") else value


def keys_of(parser: jsonargparse.ArgumentParser) -> list[str]:
    """The parser's options as in a file (`train.steps`), and its subcommands."""
    keys = [action.dest for action in parser._actions if action.option_strings and "." not in action.dest[:1]]
    return keys + list(parser._subcommands_action.choices if parser._subcommands_action else [])


def explain(message: str, keys: Iterable[str]) -> str:
    """A parser's message as one line that begins with the key at fault, with the nearest of `keys`."""
    words = "; ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    if match := re.search(r"unrecognized arguments: ([^\s=]+)", words):
        dashes = "--" if match[1].startswith("--") else ""
        if words := renamed(match[1].lstrip("-")):
            return f"{match[1]}: {words}"
        return f"{match[1]}: no such argument{nearest(match[1].lstrip('-'), keys, dashes)}"
    if match := re.search(r"(?:Subcommand|Group) '([^']*)' does not accept option '([^']*)'", words):
        key = match[2] if words.startswith("Subcommand") else f"{match[1]}.{match[2]}"
        return f"{key}: {renamed(key) or f'no such setting{nearest(key, keys)}'}"
    if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", words):
        if match[1] in COMMANDS and COMMANDS[match[1]] in match[2]:
            return f"{match[1]}: is called {COMMANDS[match[1]]} now"
        return f"{match[1]}: no such command{nearest(match[1], keys)}; there are {match[2]}".replace("'", "")
    words = re.sub(r'^Parser key "([^"]*)":;?', r"\1:", words)
    words = UNION.sub(r"expected \1, got \2", words)
    words = EXPECTED.sub(r"expected \1\2, got ", words)
    if match := re.search(r"^([\w.]+): expected .*, got (\w+)$", words):
        new = next((names.get(match[2]) for key, names in VALUES.items() if in_group(match[1], key)), None)
        return f"{match[1]}: {match[2]} is called {new} now" if new else words
    words = re.sub(r"Problems parsing config: ", "not YAML: ", words)
    words = re.sub(r'in "<unicode string>", ', "", words)
    return words if len(words) <= LONGEST else words[:LONGEST] + "..."


def in_group(key: str, setting: str) -> bool:
    """Whether a key is this setting, which may be part of a larger configuration."""
    return key == setting or key.endswith(f".{setting}")


def renamed(key: str) -> str:
    """What to write for a setting that had this name once, "" if none had."""
    for old, new in SETTINGS.items():
        before, found, after = f".{key}.".partition(f".{old}.")  # which may be a group of others
        if found:
            return f"is called {f'{before}.{new}.{after}'.strip('.')} now"
    return ""


def nearest(key: str, keys: Iterable[str], dashes: str = "") -> str:
    """ "; did you mean ...?" with the one of `keys` that is most like `key`, or "" when none is."""
    known = [k for k in keys if k != key]
    last = key.rpartition(".")[2]
    close = get_close_matches(key, known, 1, 0.7)
    close = close or sorted((k for k in known if k.rpartition(".")[2] == last), key=len)
    return f"; did you mean {dashes}{close[0]}?" if close else ""


def _sets(file: str, key: str) -> bool:
    """Whether a YAML file sets a dotted key, itself or for a subcommand."""
    try:
        with open(file, encoding="utf-8") as handle:  # noqa: PTH123
            value = yaml.safe_load(handle)
    except (OSError, ValueError, yaml.YAMLError):
        return False
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def run_command(command: Callable[[], Any], resumes: bool = True) -> int:
    """Run a command to its end and return its exit status.

    Args:
        command: parses the command line and does the work; returns a status or None.
        resumes: the same command goes on after Ctrl-C, and the line says so.
    """
    count_interrupts()
    try:
        status = int(command() or 0)
        sys.stdout.flush()
        return status
    except EditVerseError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(_advice(error))
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as error:
        # rich ends the process with status 1 when whoever read its output has left, Lightning on Ctrl-C
        if isinstance(error.__context__, BrokenPipeError):
            return _reader_left()
        if isinstance(error.__context__, KeyboardInterrupt):
            return _interrupted(resumes)
        raise
    except OSError as error:  # of the machine: a full disk, a folder that cannot be written, a network
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or first_line(error)}")
    except KeyboardInterrupt:
        return _interrupted(resumes)


def _advice(error: ModuleNotFoundError) -> str:
    """What to install when an optional package is missing; a module of ours that is missing is our fault.

    The extra is the one of this package's own metadata that asks for it.
    """
    name = (error.name or "").partition(".")[0]
    if not name or name in OURS:
        raise error
    extras = [
        extra[1]
        for line in importlib.metadata.requires("editverse") or []
        if re.split(r"[^A-Za-z0-9_-]", line)[0].replace("-", "_").lower() == name.lower()
        and (extra := re.search(r"extra == ['\"](\w+)", line))
    ]
    extras.sort(key=lambda extra: extra != "train")  # what most of our packages share is training's
    install = f"; pip install 'editverse[{extras[0]}]'" if extras else ""
    return f"the package {name} is not installed{install}"


def _interrupted(resumes: bool) -> int:
    print("interrupted" + ("; run the same command again to go on" if resumes else ""), file=sys.stderr)
    return 130


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _reader_left() -> int:
    # Python would say once more that nobody reads when it flushes stdout at exit.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 0
