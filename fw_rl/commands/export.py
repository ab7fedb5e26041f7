"""`export`: a trained agent as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from sb3_contrib.common.maskable.utils import is_masking_supported

from fw_rl.agents import export_onnx
from fw_rl.commands.command_line import fail, parse
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.checks import check_output
from fw_rl.experiments.episodes import open_env

__all__ = ["main"]


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained agent as an ONNX file: one greedy step, with the state of the memory as explicit inputs and outputs.

    Inputs: observation, episode_start (True where an episode begins), state_0, ... (zeros at first). Outputs: action, and
    next_state_0, ... to be handed in at the next step. The first dimension of each is the number of environments, any. If the
    environment forbids actions, action_masks is one more input (True is allowed).
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    onnx: Path
    """The file to write, which ends in .onnx."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the last of the run)")] = (
        None
    )
    """File of the agent."""


def main(arguments: Sequence[str], program: str = "fw-rl export") -> int:
    """Run the command; returns its exit code: 0 done, 1 if the file cannot be written, 2 bad input."""
    options = parse(ExportOptions, arguments, program)
    torch.set_num_threads(1)
    try:
        check_output("onnx", options.onnx, ".onnx")
        config, model = load_trained(options.run, options.checkpoint)
        env = open_env(config, None, model)
        export_onnx(model, options.onnx, action_masks=is_masking_supported(env))
        env.close()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return fail(program, error)
    print(f"The agent: {options.onnx}")
    return 0
