"""The options of the train command: what is tuned, what is chosen, and what bad input is answered with."""

import json
import re

import pytest
from torch import cuda

from fw_rl.commands.train import main
from fw_rl.experiments.agents import load_trained
from fw_rl.experiments.checks import NO_GPU
from tests.commands.helpers import A3C, train


def test_any_cell_and_its_options_can_be_chosen(tmp_path):
    assert train(tmp_path / "a", "--cell", "lstm", "--cell-options", "forget_bias=0.5")[0] == 0
    code, run = train(tmp_path / "b", "--cell-options", "rule=delta", "inner_steps=2", "eta=5e-1", "layer_norm=false")
    assert code == 0
    options = json.loads((run / "config.json").read_text())["settings"]["cell_options"]
    assert options | {"rule": "delta", "inner_steps": 2, "eta": 0.5, "layer_norm": False} == options


@pytest.mark.parametrize("algo", ["a2c", A3C, "ppo"])
def test_layers_and_sequences_that_are_chosen_reach_the_agent(algo, tmp_path, capsys):
    chosen = ["--bptt-length", "3", "--net-arch", "5", "7", "--encoder-arch", "9", "--shared-cell", "False", "--algo", algo]
    code, run = train(tmp_path, *chosen)
    assert code == 0
    settings, agent = load_trained(run)
    policy = agent.policy
    for found in (settings, policy):
        assert (found.net_arch, found.encoder_arch, found.shared_cell) == ([5, 7], [9], False)
    assert (settings.bptt_length, agent.bptt_length) == (3, 3)
    assert [layer.out_features for layer in policy.mlp_extractor.policy_net if hasattr(layer, "out_features")] == [5, 7]
    assert policy.cell.second is not policy.actor_cell
    capsys.readouterr()
    assert main(["--resume", str(run), "--net-arch", "5"]) == 2
    assert "--net-arch must be left out with --resume, got [5]" in capsys.readouterr().err
    assert main(["--resume", str(run), "--quiet", "--eval-episodes", "2"]) == 0


def test_an_encoder_of_no_layer_leaves_observations_as_they_are(tmp_path):
    code, run = train(tmp_path, "--encoder-arch", "--cell", "gru", timesteps=96)
    assert code == 0
    policy = load_trained(run)[1].policy
    assert len(policy.encoder) == 0
    assert policy.cell.input_size == 25


def test_a_run_that_lacks_a_setting_is_refused_in_one_line(tmp_path, capsys):
    _, run = train(tmp_path, timesteps=96)
    config = json.loads((run / "config.json").read_text())
    del config["settings"]["bptt_length"]
    (run / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["--resume", str(run), "--timesteps", "192"]) == 2
    assert capsys.readouterr().err.strip().endswith("config.json is of another version of fw_rl, without bptt_length")


@pytest.mark.parametrize(
    ("arguments", "tuned"),
    [
        ([], {"--n-envs": "64", "--n-steps": "15", "--optimizer": "adam", "--cell-options": "eta=0.1 decay=0.1"}),
        (["--algo", "ppo"], {"--n-epochs": "4", "--n-steps": "15", "--workers": "1"}),
        (["--algo", "a3c"], {"--workers": "2", "--n-epochs": "None", "--n-envs": "128"}),
        (["--engine", "ray"], {"--algo": "impala", "--optimizer": "None", "--timesteps": "3000000"}),
    ],
)
def test_the_help_shows_what_is_tuned_for_the_environment(arguments, tuned, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help", *arguments])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, value in tuned.items():
        assert re.search(rf"{name} (?:(?! --).)*?\(default: {value}", shown), name


def test_an_option_counts_for_more_than_what_is_tuned(tmp_path):
    settings = load_trained(train(tmp_path, "--cell-options", "eta=0.2", timesteps=96)[1])[0]
    assert (settings.n_envs, settings.gae_lambda) == (4, 1.0)
    assert settings.cell_options == dict(eta=0.2, decay=0.1, recurrent_scale=0.3, activation="relu")


BAD_INPUT = {
    "N too small": (["--env", "Catch-2-1"], "n must be"),
    "M too small": (["--env", "Catch-16-0"], "m must be"),
    "M above N": (["--env", "Catch-16-17"], "m must be"),
    "no M": (["--env", "Catch-16"], "Catch-<n>-<m>"),
    "no whole number": (["--env", "Catch-16-3.5"], "Catch-<n>-<m>"),
    "no number": (["--env", "Catch-a-b"], "Catch-<n>-<m>"),
    "unknown environment": (["--env", "Chase-16-3"], "got 'Chase-16-3'"),
    "unknown cell": (
        ["--cell", "lsmt"],
        "cell must be one of associative-lstm, delta-net, fast-weights, ffm, gru, lru, lru-delta-net, lstm, min-gru, rnn, shm, "
        "or module:name",
    ),
    "unknown cell option": (["--cell-options", "etta=1"], "got 'etta'"),
    "cell option out of range": (["--cell-options", "decay=2"], "decay must"),
    "cell option of a wrong type": (["--cell-options", "decay=high"], "decay"),
    "a size as a cell option": (
        ["--cell-options", "hidden_size=3"],
        "an option of the cell, and no size of it (see --hidden-size)",
    ),
    "cell option without a value": (["--cell-options", "decay"], "--cell-options must be name=value, got 'decay'"),
    "unknown optimizer": (["--optimizer", "sgd"], "--optimizer must be one of rmsprop, adam, got 'sgd'"),
    "no frames": (["--timesteps", "0"], "--timesteps must be at least 1, got 0"),
    "no environments": (["--n-envs", "-1"], "--n-envs must be at least 1, got -1"),
    "no steps": (["--n-steps", "0"], "--n-steps must be at least 1, got 0"),
    "no units": (["--hidden-size", "0"], "--hidden-size must be at least 1, got 0"),
    "learning rate": (["--learning-rate", "-1"], "--learning-rate must be above 0 and finite, got -1"),
    "not a number": (["--learning-rate", "nan"], "--learning-rate must be above 0 and finite, got nan"),
    "discount": (["--gamma", "1.5"], "--gamma must be between 0 and 1, got 1.5"),
    "seed": (["--seed", "-1"], "--seed must be from 0 to 2147483647, got -1"),
    "device": (["--device", "tpu"], "--device must be cpu, cuda, cuda:K or auto, got 'tpu'"),
    "device that is none": (["--device", "cudax"], "--device must be cpu, cuda, cuda:K or auto, got 'cudax'"),
    "device that is not here": (["--device", "cuda:99"], "of this machine, got 'cuda:99'" if cuda.is_available() else NO_GPU),
    "folder that is a file": (["--log-dir", __file__], "test_train_options.py"),
    "module that is not here": (["--env", "no_such_module:Env-v0"], "no_such_module cannot be imported"),
    "module without the environment": (["--env", "json:Env-v0"], "got 'json:Env-v0'"),
    "cell option of no form": (
        ["--cell-options", "eta=[1"],
        "--cell-options must have numbers, words, true or false as values, got eta=[1",
    ),
    "scaling on Ray": (["--normalize", "True", "--engine", "ray"], "--normalize must be left out with --engine ray, got True"),
    "epochs of another algorithm": (["--n-epochs", "3"], "--n-epochs must be left out with --algo a2c, got 3"),
    "batch too small": (
        ["--algo", "ppo", "--batch-size", "5", "--bptt-length", "15"],
        "--batch-size must be at least 15, the steps of a sequence, got 5",
    ),
    "None where it is no choice": (
        ["--algo", "ppo", "--n-epochs", "None"],
        "--n-epochs must be a value with --algo ppo, got None",
    ),
    "a batch above the rollout that is the default": (
        ["--env", "CartPole-v1", "--n-steps", "8", "--batch-size", "256"],
        "--batch-size must be at most 128, the steps of a rollout",
    ),
    "no clipping": (["--algo", "ppo", "--clip-range", "0"], "--clip-range must be above 0 and finite, got 0"),
    "no episodes": (["--eval-episodes", "0"], "--eval-episodes must be at least 1, got 0"),
    "no threads": (["--threads", "0"], "--threads must be at least 1, got 0"),
    "sequence of no step": (["--bptt-length", "0"], "--bptt-length must be at least 1, got 0"),
    "sequence too long": (["--bptt-length", "16"], "--bptt-length must be at most --n-steps, 15, got 16"),
    "layer of no unit": (["--net-arch", "8", "0"], "--net-arch must be at least 1, got 0"),
    "layer beyond any number": (["--net-arch", "8", "9" * 20], "--net-arch must be at most 1000000000000, got " + "9" * 20),
    "encoder of no unit": (["--encoder-arch", "-1"], "--encoder-arch must be at least 1, got -1"),
    "unknown algorithm": (["--algo", "dqn"], "--algo must be one of a2c, ppo, a3c with --engine local, got 'dqn'"),
    "unknown engine": (["--engine", "spark"], "--engine must be one of local, ray, got 'spark'"),
    "cluster without its engine": (["--ray-address", "auto"], "--ray-address must be left out with --engine local, got 'auto'"),
    "device of the cluster": (["--engine", "ray", "--device", "cuda"], "--device must be"),
    "option twice": (["--cell-options", "eta=0.1", "eta=0.2"], "--cell-options must be eta once, got 'eta=0.2'"),
    "no option": (["--cell-options"], "--cell-options must be one or more of name=value, got 'none'"),
    "option of no name": (["--cell-options", "=1"], "--cell-options must be name=value, got '=1'"),
    "True for a number": (["--cell-options", "eta=True"], "eta must be of type float, got True"),
    "steps beyond any number": (
        ["--cell-options", "inner_steps=" + "9" * 20],
        "inner_steps must be at most 1e+06, got " + "9" * 20,
    ),
    "layers beyond any number": (
        ["--cell-options", "layers=1000000000"],
        "layers must be a whole number from 1 to 1000000, got 1000000000",
    ),
    "beyond float32": (["--cell-options", "eta=1e308"], "eta must be at most 3.40282e+38, got 1e+308"),
    "rate beyond float32": (["--learning-rate", "1e308"], "--learning-rate must be above 0 and finite, got 1e+308"),
    "seed beyond int32": (["--seed", "99999999999999999999"], "--seed must be from 0 to 2147483647, got 99999999999999999999"),
    "more threads than cores": (["--threads", "100000"], "--threads must be at most "),
    "more processes than a machine has": (["--workers", "100000", "--n-envs", "100000"], "--workers must be at most "),
    "a rollout above all frames": (["--n-steps", "99999"], "--timesteps must be at least 6399936, the steps of a rollout"),
    "a batch above the rollout": (
        ["--algo", "ppo", "--batch-size", "961"],
        "--batch-size must be at most 960, the steps of a rollout: --n-steps 15 in each of --n-envs 64, got 961",
    ),
    "an environment that cannot be imported": (["--env", "GymV26Environment-v0"], "env must be one that can be made"),
    "no run to resume": (["--resume", "no/such/run"], "RUN must be the folder of a run"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_exit_code_2(case, tmp_path, capsys):
    arguments, expected = BAD_INPUT[case]
    elsewhere = [] if {"--resume", "--log-dir"} & {*arguments} else ["--log-dir", str(tmp_path / "runs")]
    assert main([*arguments, *elsewhere]) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["--timesteps", "many"], ["--no-such-option"], ["--seed", "1.5"]])
def test_words_that_do_not_parse_exit_with_code_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_a_batch_that_is_not_chosen_follows_the_rollout(tmp_path):
    chosen = ["--algo", "ppo", "--n-envs", "4", "--n-steps", "6"]
    assert load_trained(train(tmp_path, *chosen, timesteps=24)[1])[0].batch_size == 24


def test_none_counts_for_more_than_what_is_tuned(tmp_path):
    chosen = ["--algo", "ppo", "--normalize-advantage", "None", "--n-envs", "4"]
    settings, agent = load_trained(train(tmp_path, *chosen, timesteps=60)[1])
    assert settings.normalize_advantage is agent.normalize_advantage is None
