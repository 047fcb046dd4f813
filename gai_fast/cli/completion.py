"""`gai-fast completion`: prints the script by which a shell completes commands, flags and their values.

The script asks the command line itself at each TAB, so it never differs from the flags that there are.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from gai_fast.cli import main

PROGRAM = "gai-fast"
VARIABLE = "_GAI_FAST_COMPLETE"
"""The environment variable by which the script asks: click derives it from the program's name."""
SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(gai-fast completion bash)" in ~/.bashrc; zsh: the same line in ~/.zshrc, after compinit;
    fish: gai-fast completion fish > ~/.config/fish/completions/gai-fast.fish
    """
    complete = SHELLS[shell](main, {}, PROGRAM, VARIABLE)
    # The template alone: `source()` of bash also runs a bash to ask for its version, which need not be here. That of
    # fish splits a line at each comma, those of a description included; only the first one ends the kind of a value.
    script = complete.source_template % complete.source_vars()
    click.echo(script.replace('string split "," ', 'string split -m1 "," '), nl=False)
