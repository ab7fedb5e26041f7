"""A trained agent as a folder to share: the files needed to play it and to continue its training, with a model card."""

from __future__ import annotations

import dataclasses
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fw_rl.agents import RecurrentOnPolicyAlgorithm
from fw_rl.agents.checkpoint import read_checkpoint
from fw_rl.experiments.animation import draw_episodes
from fw_rl.experiments.checks import make_folder, require_option
from fw_rl.experiments.environments import changes_to_observations
from fw_rl.experiments.hub import PREFIX, SHARED_FILES
from fw_rl.experiments.run_folder import RunFolder
from fw_rl.experiments.settings import RunSettings
from fw_rl.files import write_file, write_json
from fw_rl.modules import reason, without_module

__all__ = ["check_card", "stored_evaluation", "write_card"]

CARD = """\
---
{metadata}---

# {algo} with the memory {cell} on {env}

An agent trained with fw-rl for {frames:,} frames on `{env}`, an environment for
[Gymnasium](https://gymnasium.farama.org). fw-rl has agents with memory in the style of Stable-Baselines3.
{film}
## Evaluation

| actions | episodes | mean return | standard deviation | 95 % interval of the mean |
| --- | --- | --- | --- | --- |
{returns}
{curve}
## Use

```bash
pip install 'fw-rl[{extras}]'
fw-rl play {run}
```

In Python:

```python
{code}
```

`model.safetensors` holds tensors and JSON with a checksum, and no pickle: loading it runs no code.

## Continue training

The file also has the states of the optimizer and the random generators.

```bash
{resume}
```

## Settings

| setting | value |
| --- | --- |
{settings}

Trained with {versions}.
"""


def check_card(folder: Path, run: Path) -> None:
    """Check the folder that --card names, and make it; ValueError if it has other files than those of an earlier card."""
    require_option("card", folder, folder.resolve() != run.resolve(), "another folder than RUN")
    require_option("card", folder, _is_free(folder), "a new folder, an empty one, or that of an earlier card")
    make_folder("card", folder)


def _is_free(folder: Path) -> bool:
    """Whether a folder has nothing but the files of an earlier card."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    card = folder / "README.md"
    is_card = card.is_file() and "library_name: fw-rl" in card.read_text(errors="replace")
    return not names or (names <= {*SHARED_FILES} and is_card)


def stored_evaluation(run: Path, model: RecurrentOnPolicyAlgorithm) -> dict[str, Any] | None:
    """The content of eval.json, if it is of this agent and not of an earlier or later one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record: dict[str, Any] = json.loads(RunFolder(run).evaluation.read_text())
        if record["timesteps"] == model.num_timesteps:
            return record
    return None


def write_card(
    to: Path,
    run: RunFolder,
    config: RunSettings,
    model: RecurrentOnPolicyAlgorithm,
    checkpoint: Path,
    evaluation: dict[str, Any],
    repository: str | None,
) -> str:
    """Write the folder, the card last; returns why there is no animation, or an empty string.

    The animation is the run's own if the evaluation is, else a new one.
    """
    shared, problem = RunFolder(to), ""
    sources = {shared.weights: checkpoint, shared.config: run.config, shared.curve: run.curve, shared.progress: run.progress}
    if stored_evaluation(run.path, model) == evaluation:
        sources[shared.episodes] = run.episodes
    contents = {path: source.read_bytes() for path, source in sources.items() if source.is_file()}
    for name in SHARED_FILES:
        (to / name).unlink(missing_ok=True)
    for path, content in contents.items():
        write_file(path, content)
    write_json(shared.evaluation, evaluation)
    if not shared.episodes.is_file():
        try:
            draw_episodes(shared.episodes, config, model)
        except ValueError as error:
            problem = reason(error)
    write_file(shared.card, _card(shared, config, model, evaluation, repository).encode())
    return problem


def _card(
    shared: RunFolder,
    config: RunSettings,
    model: RecurrentOnPolicyAlgorithm,
    evaluation: dict[str, Any],
    repository: str | None,
) -> str:
    place = shared.path.resolve().name
    resume = "runs/" + repository.partition("/")[2] if repository else place
    more = f"fw-rl train --resume {shlex.quote(resume)} --timesteps {2 * max(config.timesteps, model.num_timesteps)}"
    settings = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    versions = read_checkpoint(shared.weights).versions
    return CARD.format(
        metadata=yaml.safe_dump(_metadata(config, evaluation), sort_keys=False, allow_unicode=True),
        algo=config.algo.upper(),
        cell=config.short_cell,
        env=without_module(config.env),
        frames=model.num_timesteps,
        film=_picture("Episodes of the agent", shared.episodes),
        returns="\n".join(
            _row(actions, evaluation["episodes"], of)
            for actions, of in (("greedy", evaluation), ("drawn as in training", evaluation["sampled"]))
        ),
        curve=_picture("Learning curve", shared.curve),
        extras="cli,hub" if repository else "cli",
        run=f"{PREFIX}{repository}" if repository else shlex.quote(place),
        code=_code(config, model, repository, place),
        resume=f"hf download {repository} --local-dir {resume}\n{more}" if repository else more,
        settings="\n".join(f"| `{name}` | `{json.dumps(value)}` |" for name, value in settings.items()),
        versions=", ".join(f"{name} {of}" for name, of in versions.items() if name != "system" and of != "not installed"),
    )


def _metadata(config: RunSettings, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the card, under the names that models of Stable-Baselines3 use on the Hub."""
    env = without_module(config.env)
    metric = dict(type="mean_reward", name="mean_reward", value=_spread(evaluation), verified=False)
    task = dict(type="reinforcement-learning", name="reinforcement-learning")
    result = dict(task=task, dataset=dict(name=env, type=env), metrics=[metric])
    return {
        "library_name": "fw-rl",
        "pipeline_tag": task["type"],
        "tags": [env.replace("/", "-"), task["type"], f"deep-{task['type']}", "fw-rl", config.algo, config.short_cell],
        "model-index": [dict(name=f"{config.algo.upper()} {config.short_cell}", results=[result])],
    }


def _spread(returns: dict[str, Any]) -> str:
    return f"{returns['mean']:.2f} +/- {returns['std']:.2f}"


def _row(actions: str, episodes: int, returns: dict[str, Any]) -> str:
    interval = "{:.3f} to {:.3f}".format(*returns["interval_95"]) if returns["interval_95"] else ""
    return f"| {actions} | {episodes:,} | {returns['mean']:.3f} | {returns['std']:.3f} | {interval} |"


def _picture(title: str, path: Path) -> str:
    return f"\n![{title}]({path.name})\n" if path.is_file() else ""


def _code(config: RunSettings, model: RecurrentOnPolicyAlgorithm, repository: str | None, place: str) -> str:
    """Python code that loads the agent, and plays it if Gymnasium alone can make the environment that it knows."""
    name, module = type(model).__name__, config.cell.rpartition(":")[0]
    weights = json.dumps(f"{place}/model.safetensors")
    changes = changes_to_observations(config.env)
    lines = ["import gymnasium as gym"] if not changes else []
    if repository:
        lines.append("from huggingface_hub import hf_hub_download")
        weights = f'hf_hub_download("{repository}", "model.safetensors")'
    lines += [""] if lines else []
    lines.append(f"from fw_rl import {'' if changes else 'Player, '}{name}")
    if config.previous_step and not changes:
        lines.append("from fw_rl.envs import PreviousStep")
    if module:
        lines += ["", f"import {module}  # which registers the cell"]
    lines += ["", f"model = {name}.load({weights})"]
    if changes:
        return "\n".join([*lines, *(f"# {line}. `fw-rl play` does that." for line in changes)])
    lines.append(f"env = gym.make({json.dumps(config.env)})")
    if config.previous_step:
        lines.append(f"env = PreviousStep(env, reward={config.previous_reward})")
    return "\n".join([*lines, "print(Player(model).play(env, n_episodes=20).mean())"])
