"""The command line's parser: mistakes are one line, unknown options come with the nearest known one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxgan.configure import Experiment, load_config, nearest, override


class Parser(argparse.ArgumentParser):
    """Raises ValueError with one line where argparse would print its usage and leave."""

    def __init__(self, prog: str, **options):
        super().__init__(prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({' '.join(self.format_usage().split())})")

    def words(self) -> list[str]:
        """Names of the options, without dashes."""
        return [word[2:] for action in self._actions for word in action.option_strings if word.startswith("--")]

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """All of `argv`; ValueError names an unknown option with the nearest known one."""
        options, rest = self.parse_known_args(argv)
        if rest:
            flag = rest[0].split("=", 1)[0]
            raise ValueError(f"unknown option {flag}{nearest(flag.lstrip('-'), self.words(), '--')}")
        return options

    def parse_with_fields(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(this command's own options, the words that replace fields of a config: every other `--name` and what follows it)."""
        own, fields = [], []
        target = own
        for word in argv:
            if word.startswith("-") and not word.startswith("--"):
                target = target if word[1:2].isdigit() or word[1:2] == "." else own  # -1 is a value
            elif word.startswith("--"):
                target = own if word[2:].split("=", 1)[0] in self.words() else fields
            target.append(word)
        return self.parse(own), fields


def configured(options: argparse.Namespace, fields: Sequence[str], parser: Parser) -> Experiment:
    """The experiment of ``options.config``, its tiny() with ``options.tiny``, with the fields that these words replace."""
    experiment = load_config(options.config, "tiny" if options.tiny else "config")
    return override(experiment, fields, prog=f"{parser.prog} {options.config}", options=parser.words())
