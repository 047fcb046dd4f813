"""`gai-fast completion`: prints a script with which a shell completes commands, flags and their values.

The script runs `gai-fast` at each TAB, so that completions always match the installed flags.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from gai_fast.cli import main

PROGRAM = "gai-fast"
VARIABLE = "_GAI_FAST_COMPLETE"
"""The environment variable with which the script asks for completions: click derives it from the program's name."""
SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(gai-fast completion bash)" in ~/.bashrc; zsh: the same line in ~/.zshrc, after compinit;
    fish: gai-fast completion fish > ~/.config/fish/completions/gai-fast.fish
    """
    complete = SHELLS[shell](main, {}, PROGRAM, VARIABLE)
    # Only the template is used: `source()` for bash also runs bash for its version, and bash may not be installed. The
    # fish template splits a line at each comma, also within a description; only the first comma is a separator.
    script = complete.source_template % complete.source_vars()
    click.echo(script.replace('string split "," ', 'string split -m1 "," '), nl=False)
