"""`trueup completion`: the script that makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from cli.failures import Failed
from cli.options import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    bash: `source <(trueup completion bash)`; zsh: the same; fish: `trueup completion fish | source`.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Failed(f"there is no completion for {shell}; there is for {', '.join(_SHELLS)}")
    try:
        click.echo(kind(context.find_root().command, {}, "trueup", "_TRUEUP_COMPLETE").source())
    except (RuntimeError, OSError) as error:
        raise Failed(f"{shell} cannot be asked for its version: {error}") from error
