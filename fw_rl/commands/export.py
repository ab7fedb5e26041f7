"""`export`: a trained agent as an ONNX file, or as a folder with a model card for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from sb3_contrib.common.maskable.utils import is_masking_supported

from fw_rl.agents import RecurrentOnPolicyAlgorithm, export_onnx
from fw_rl.commands.command_line import fail, fault, parse
from fw_rl.experiments.agents import evaluation_record, load_trained
from fw_rl.experiments.card import check_card, stored_evaluation, write_card
from fw_rl.experiments.checks import check_output, require_option
from fw_rl.experiments.episodes import open_env
from fw_rl.experiments.hub import check_repository, local_run, push
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.modules import reason

__all__ = ["main"]


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained agent as an ONNX file, or as a folder with a model card.

    The ONNX file computes one greedy step, with the state of the memory as explicit inputs and outputs. Inputs: observation,
    episode_start (True where an episode begins), state_0, ... (zeros at first). Outputs: action, and next_state_0, ..., which
    are the inputs of the next step. The first dimension of each is the number of environments, which may vary. If the
    environment masks actions, action_masks is another input (True means allowed).

    The folder has the weights, the settings, an evaluation, an animation and a card, README.md. `play` and `train --resume`
    accept it as a run.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:USER/NAME for one on the Hugging Face Hub."""
    onnx: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """The file to write; its name must end in .onnx."""
    card: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """The folder to write. An agent without an evaluation is evaluated first."""
    push: Annotated[str | None, tyro.conf.arg(metavar="USER/NAME", help_behavior_hint="(default: none)")] = None
    """Upload the folder of --card to this repository on the Hugging Face Hub, where everyone can see it."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the last of the run)")] = (
        None
    )
    """Checkpoint to export."""


def main(arguments: Sequence[str], program: str = "fw-rl export") -> int:
    """Run the command; returns its exit code: 0 done, 1 for a fault of the machine or the network, 2 bad input."""
    options = parse(ExportOptions, arguments, program)
    torch.set_num_threads(1)
    try:
        _check(options)
        run = local_run(options.run)
        config, model = load_trained(run, options.checkpoint)
        env = open_env(config, None, model)
        if options.onnx:
            export_onnx(model, options.onnx, action_masks=is_masking_supported(env))
            print(f"ONNX file: {options.onnx}")
        env.close()
        if options.card:
            _write_card(options, options.card, RunFolder(run), config, model)
    except (ConnectionError, FloatingPointError) as error:
        return fail(program, error, code=1)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return fail(program, error)
    return _push(options.card, options.push, program) if options.card and options.push else 0


def _check(options: ExportOptions) -> None:
    if not (options.onnx or options.card):
        raise ValueError("--onnx or --card must be given, got neither")
    if options.onnx:
        check_output("onnx", options.onnx, ".onnx")
    if options.push:
        check_repository("--push", options.push)
        require_option("push", options.push, options.card is not None, "given with --card, whose folder it uploads")
    if options.card:
        checkpoint = options.checkpoint
        shared = checkpoint is None or checkpoint.suffix == ".safetensors"
        require_option("checkpoint", checkpoint, shared, "a file whose name ends in .safetensors with --card")
        check_card(options.card, options.run)


def _write_card(
    options: ExportOptions, to: Path, run: RunFolder, config: RunSettings, model: RecurrentOnPolicyAlgorithm
) -> None:
    evaluation = stored_evaluation(run.path, model)
    if evaluation is None:
        episodes = config.evaluation_episodes
        print(f"Evaluating {episodes:,} greedy and {episodes:,} sampled episodes ...", flush=True)
        evaluation = evaluation_record(config, model, episodes, progress_bar=True)
    checkpoint = options.checkpoint or run.last_checkpoint()
    problem = write_card(to, run, config, model, checkpoint, evaluation, options.push)
    if problem:
        print(f"No animation: {problem}")
    print(f"Folder: {to}")


def _push(folder: Path, repository: str, program: str) -> int:
    """Upload the folder, which stays intact whatever happens; returns the exit code."""
    whole = f"the folder {folder} is whole"
    try:
        address = push(folder, repository)
    except OSError as error:  # also a ConnectionError
        return fault(program, error, f"{whole}: the same command tries again")
    except (ValueError, ModuleNotFoundError) as error:
        return fail(program, f"{reason(error)}; {whole}")
    print(f"On the Hub: {address}")
    return 0
