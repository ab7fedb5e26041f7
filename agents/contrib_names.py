"""The names of SB3 and sb3-contrib: those that work here too, and what takes the place of the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from fw_rl.agents.policy import RecurrentActorCriticPolicy
from fw_rl.arguments import check_kind, constructor_parameters, require

__all__ = ["LSTM_POLICIES", "check_arguments", "check_policy", "own_policy"]

LSTM_POLICIES = ("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy")
"""sb3-contrib's policies; the space of observations decides the features extractor of the first and the last."""

_ARGUMENTS = {
    "use_rms_prop": "optimizer='rmsprop' or 'adam' takes its place",
    "rms_prop_eps": "optimizer_eps takes its place",
    "use_sde": "there is no state-dependent exploration with a memory",
    "sde_sample_freq": "there is no state-dependent exploration with a memory",
    "rollout_buffer_class": "a rollout of sequences takes its place, see bptt_length",
    "rollout_buffer_kwargs": "bptt_length takes its place",
}
_POLICY_ARGUMENTS = {
    "lstm_hidden_size": "hidden_size",
    "n_lstm_layers": "cell_kwargs=dict(layers=...)",
    "shared_lstm": "shared_cell",
    "enable_critic_lstm": "shared_cell=False",
    "lstm_kwargs": "cell_kwargs (no cell has dropout)",
}


def check_arguments(agent_class: type, arguments: Mapping[str, Any]) -> None:
    """ValueError for an argument of a wrong type, and for one of SB3's or sb3-contrib's, with what takes its place here."""
    known = constructor_parameters(agent_class)
    for name, value in arguments.items():
        if name in _ARGUMENTS:
            raise ValueError(f"{name} must be left out: {_ARGUMENTS[name]}")
        if name in known:
            check_kind(known[name], value)
    given = arguments.get("policy_kwargs")
    require("policy_kwargs", given, given is None or isinstance(given, Mapping), "a dictionary")


def check_policy(policy_class: Any, arguments: Mapping[str, Any]) -> type[RecurrentActorCriticPolicy]:
    """The class, if it has a memory and takes these arguments; else ValueError, with our name of an argument of sb3-contrib."""
    if not isinstance(policy_class, type) or not issubclass(policy_class, RecurrentActorCriticPolicy):
        got = getattr(policy_class, "__name__", policy_class)
        raise ValueError(f"policy must be a class of RecurrentActorCriticPolicy, or a name, got {got}")
    parameters = list(inspect.signature(policy_class).parameters.values())
    known = {parameter.name: parameter for parameter in parameters[3:]}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for name, value in arguments.items():
        if name in known:
            check_kind(known[name], value)
        elif not takes_any:
            here = f", which is {_POLICY_ARGUMENTS[name]} here" if name in _POLICY_ARGUMENTS else ""
            raise ValueError(f"policy_kwargs must be of {', '.join(known)}, got {name!r}{here}")
    return policy_class


def own_policy(policy: str | type[BasePolicy], policy_kwargs: dict[str, Any]) -> tuple[str | type[BasePolicy], dict[str, Any]]:
    """A policy and its arguments, for a name of sb3-contrib those that make the same net here."""
    if isinstance(policy, str) and policy in LSTM_POLICIES:
        return "RecurrentPolicy", _lstm_arguments(policy, **policy_kwargs)
    return policy, policy_kwargs


def _lstm_arguments(
    policy: str,
    lstm_hidden_size: int = 256,
    n_lstm_layers: int = 1,
    shared_lstm: bool = False,
    enable_critic_lstm: bool | None = None,
    cell_kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Arguments of `RecurrentActorCriticPolicy` that make the net of a policy of sb3-contrib.

    Its sizes, activations and initial weights are those there: `forget_bias=1`, the default of "RecurrentPolicy", learns a task
    without a past slowly. Observations are scaled, as by any policy here. A shared LSTM learns from the critic's error too.
    Several layers are a `fw_rl.cells.Stack`.
    """
    if others.get("cell", "lstm") != "lstm":
        raise ValueError(
            f"cell must be left out with {policy!r}, whose cell is an LSTM, got {others['cell']!r}: say 'RecurrentPolicy'"
        )
    own = not shared_lstm if enable_critic_lstm is None else enable_critic_lstm
    if own == shared_lstm:
        got = f"got {own} and shared_lstm={shared_lstm}"
        raise ValueError(f"enable_critic_lstm must be {not shared_lstm} where shared_lstm is {shared_lstm}, {got}")
    net = dict(
        cell="lstm",
        hidden_size=lstm_hidden_size,
        cell_kwargs=dict(layers=n_lstm_layers, forget_bias=0.0) | (cell_kwargs or {}),
        features_extractor_class=NatureCNN if policy == "CnnLstmPolicy" else None,
        shared_cell=shared_lstm,
        encoder_arch=[],
        net_arch=[] if policy == "CnnLstmPolicy" else [64, 64],
        activation_fn=nn.Tanh,
        ortho_init=True,
    )
    return net | {name: value for name, value in others.items() if (name, value) != ("net_arch", None)}
