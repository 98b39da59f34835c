"""Help in pages: the common options of a command first, and the rest section by section.

`--help` shows a command's common options and names its sections, `--help=train` shows one of them and
`--help=all` everything. The sections are the groups of a configuration (`train.steps` is in `train`), and
those that `help_page` names for options outside of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from shards.errors import SettingError

Command = TypeVar("Command", bound=Callable[..., Any])

ALL = "all"
CONFIG_HELP = "YAML file with this section's settings."


@dataclass(frozen=True)
class HelpLayout:
    """How a command's first page is laid out.

    Attributes:
        common: settings of sections that the first page shows beside the options outside of any.
        sections: further sections: name -> (title, options). Options of a configuration's group that one
            names leave the group's own section; it is a section of that one if its name begins with it.
    """

    common: tuple[str, ...] = ()
    sections: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


def help_page(
    common: Sequence[str] = (), sections: dict[str, tuple[str, tuple[str, ...]]] | None = None
) -> Callable[[Command], Command]:
    """Lay out the help of a command, which stays as it is; see `HelpLayout`."""

    def decorate(command: Command) -> Command:
        command.help_layout = HelpLayout(tuple(common), sections or {})  # type: ignore[attr-defined]
        return command

    return decorate


@dataclass
class Section:
    """A section of options; `train` has the parent "", `model.dit` the parent `model`."""

    name: str
    title: str
    actions: list[argparse.Action]

    @property
    def parent(self) -> str:
        """The section that names this one."""
        return self.name.rpartition(".")[0]


class HelpAction(argparse._HelpAction):
    """`--help` and `--help=SECTION`."""

    def __init__(self, option_strings: Sequence[str], dest: str = argparse.SUPPRESS, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, **kwargs)
        self.nargs = "?"
        self.invocation = ", ".join(option_strings)  # as it is shown

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> NoReturn:
        """Print the page that is asked for and exit.

        Raises:
            SettingError: there is no such section.
        """
        lay_out(parser, values or "")
        parser.print_help()
        raise SystemExit(0)


def lay_out(parser: Any, page: str) -> None:
    """Leave in a parser's help what belongs on a page: "" for the first one, `all`, or a section's name.

    A parser whose command has no sections keeps its groups.

    Raises:
        SettingError: there is no such section.
    """
    layout: HelpLayout = getattr(parser, "help_layout", HelpLayout())
    groups = [group for group in parser._action_groups if group._group_actions]
    sections = {section.name: section for section in _sections(groups, layout)}
    if page not in ("", ALL, *sections):
        known = f"there are {', '.join([*sections, ALL])}" if sections else f"there is {ALL} alone"
        raise SettingError(f"--help={page}: no such section; {known}")
    by_dest = {action.dest: action for action in parser._actions}
    if "print_config" in by_dest:
        by_dest["print_config"].help = "print all settings as YAML and exit; --config takes them back"
    if not sections:
        return
    by_dest["help"].invocation += "[=SECTION]"
    in_sections = {id(action) for section in sections.values() for action in section.actions}
    shown = []
    if page in ("", ALL):
        for group in groups:
            outside = [action for action in group._group_actions if id(action) not in in_sections]
            shown.append(_group(parser, group.title, outside))
    if page == "":
        common = [by_dest[name] for name in layout.common]
        shown.append(_group(parser, "common settings of the sections below", common))
    else:
        chosen = sections.values() if page == ALL else [sections[page]]
        shown += [_group(parser, section.name, section.actions, section.title) for section in chosen]
    if page != ALL:
        rows = [
            argparse.Action([], section.name, metavar=section.name, help=section.title)
            for section in sections.values()
            if section.parent == page
        ]
        title = f"sections, each shown by --help=SECTION; --help={ALL} shows them all"
        shown.append(_group(parser, title, rows))
    parser._action_groups = [group for group in shown if group._group_actions]


def _sections(groups: Iterable[Any], layout: HelpLayout) -> Iterable[Section]:
    """The sections that the layout names, then those of the configuration in their order."""
    groups = list(groups)
    named = {option for _, options in layout.sections.values() for option in options}
    by_dest = {action.dest: action for group in groups for action in group._group_actions}
    more = {
        name: Section(name, title, [by_dest[option] for option in options])
        for name, (title, options) in layout.sections.items()
    }
    yield from (section for section in more.values() if not section.parent)
    for group in groups:
        first = group._group_actions[0]
        if first.option_strings and any(a.dest.startswith(f"{first.dest}.") for a in group._group_actions):
            first.help = CONFIG_HELP
            own = [action for action in group._group_actions if action.dest not in named]
            yield Section(first.dest, group.title, own)
            yield from (section for section in more.values() if section.parent == first.dest)


def _group(parser: Any, title: str, actions: list[argparse.Action], about: str | None = None) -> Any:
    group = argparse._ArgumentGroup(parser, title, about)
    group._group_actions = actions
    return group
