"""The training loop: it learns, it is the same every time, and it goes on after it was stopped as if it had not been."""

import math

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from fw_rl.document import pack, read_document, write_document
from fw_rl.tasks.base import Data, Split, layers
from fw_rl.tasks.digits import Digits
from fw_rl.tasks.faces import Expressions
from fw_rl.tasks.retrieval import Retrieval
from fw_rl.tasks.training import Training, best_epoch, evaluate, train


def points(seed, size=300):
    inputs = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    return Split(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


DATA = Data(points(0), points(1), points(2))
TRAINING = Training(learning_rate=1e-2, epochs=5, seed=3, batch_size=32)


def make_net(seed=0):
    torch.manual_seed(seed)
    return layers(4, 16, 2, last_relu=False)


def noisy(inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def numbers(history):
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


def test_it_learns():
    net = make_net()
    history = train(net, DATA, Training(3e-2, epochs=30, seed=0))
    assert history[0]["test_error"] > 20
    assert history[-1]["test_error"] < 12
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert (history[-1]["test_error"], history[-1]["test_loss"]) == evaluate(net, DATA.test)


def test_the_net_learns_in_training_mode_alone():
    net, seen = make_net(), set()
    net.register_forward_pre_hook(lambda net, _: seen.add((net.training, torch.is_grad_enabled())))
    train(net, DATA, Training(1e-2, epochs=2, seed=0))
    assert seen == {(True, True), (False, False)}


class Stop(Exception):
    pass


def stopping(epoch, after=0):
    """As `noisy`, until that epoch and batch."""
    calls = 0

    def vary(inputs, generator):
        nonlocal calls
        calls += 1
        if calls > math.ceil(300 / 32) * epoch + after:
            raise Stop
        return noisy(inputs, generator)

    return vary


def half_frozen():
    net = make_net()
    next(net.parameters()).requires_grad_(False)
    return net


@pytest.mark.parametrize("make_net", [make_net, half_frozen])
@pytest.mark.parametrize("epoch, batch", [(0, 3), (1, 0), (2, 7), (4, 9)])
def test_a_stopped_run_goes_on_bit_for_bit(epoch, batch, make_net, tmp_path):
    whole = make_net()
    expected = train(whole, DATA, TRAINING, vary=noisy)
    path = tmp_path / "a.safetensors"
    with pytest.raises(Stop):
        train(make_net(), DATA, TRAINING, vary=stopping(epoch, batch), checkpoint=path)
    seen = []
    resumed = make_net()
    history = train(resumed, DATA, TRAINING, vary=noisy, checkpoint=path, on_epoch=lambda number, _: seen.append(number))
    assert numbers(history) == numbers(expected)
    assert seen == list(range(epoch + 1, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_stops_in_the_middle_of_a_write_lose_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    train(make_net(), DATA, Training(1e-2, epochs=2, seed=3), checkpoint=path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        train(make_net(), DATA, TRAINING, checkpoint=path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_seeds_differ_and_one_seed_does_not():
    nets = [make_net(), make_net(), make_net()]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        train(net, DATA, Training(1e-2, epochs=1, seed=seed))
    first, same, other = (net[0].weight for net in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("anneal", [True, False])
def test_the_learning_rate_follows_a_cosine_to_zero(anneal, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def record(self, *arguments):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    train(make_net(), DATA, Training(0.5, epochs=2, seed=0, batch_size=150, anneal=anneal))
    expected = [0.5, 0.5 * (1 + math.sqrt(0.5)) / 2, 0.25, 0.5 * (1 - math.sqrt(0.5)) / 2] if anneal else [0.5] * 4
    assert rates == pytest.approx(expected)


def test_weights_shrink_by_decay_times_learning_rate():
    net, split = Constant(), Split(torch.zeros(5, 1), torch.tensor([1, 1, 1, 0, 1]))
    nn.init.ones_(net.parameter)
    # Its gradient is 0, so that nothing but the decay changes it: twice, by 0.5 * 0.1 and by half of that.
    train(net, Data(split, split, split), Training(0.5, epochs=1, seed=0, batch_size=3, weight_decay=0.1))
    assert net.parameter.item() == pytest.approx((1 - 0.05) * (1 - 0.025))


def test_a_long_gradient_is_clipped(monkeypatch):
    norms = []

    def record(self, *arguments):
        norms.append(nn.utils.get_total_norm([parameter.grad for parameter in self.param_groups[0]["params"]]).item())

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    for limit in (None, 100.0, 0.01):
        train(make_net(), DATA, Training(0.5, epochs=1, seed=0, batch_size=300, max_grad_norm=limit))
    assert norms == pytest.approx([norms[0], norms[0], 0.01], rel=1e-3)
    assert norms[0] > 0.1


def test_an_epoch_shows_every_example_once_in_new_order():
    seen = []

    def vary(inputs, generator):
        seen.append(inputs[:, 0])
        return inputs

    train(make_net(), DATA, Training(1e-3, epochs=2, seed=0), vary=vary)
    first, second = torch.cat(seen).split(300)
    assert torch.equal(first.sort().values, DATA.train.inputs[:, 0].sort().values)
    assert torch.equal(second.sort().values, first.sort().values)
    assert not torch.equal(first, second)


class Constant(nn.Module):
    """Logits that say class 1 with probability 3/4, plus a parameter to train."""

    def __init__(self):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return torch.tensor([0.0, math.log(3)]).expand(len(inputs), 2) + 0 * self.parameter


def test_errors_and_losses_are_means_over_all_examples():
    split = Split(torch.zeros(5, 1), torch.tensor([1, 1, 1, 0, 1]))
    error, loss = evaluate(Constant(), split, batch_size=2)
    assert error == pytest.approx(20)
    assert loss == pytest.approx((4 * math.log(4 / 3) + math.log(4)) / 5)
    history = train(Constant(), Data(split, split, split), Training(1.0, epochs=1, seed=0, batch_size=2))
    assert history[0]["train_loss"] == pytest.approx(loss)


def test_a_run_ends_early_after_three_epochs_without_an_error():
    always_right = Split(torch.zeros(6, 1), torch.ones(6, dtype=torch.long))
    history = train(Constant(), Data(*[always_right] * 3), Training(1e-3, epochs=50, seed=0))
    assert len(history) == 3


def test_a_finished_run_is_not_trained_again(tmp_path):
    path = tmp_path / "a.safetensors"
    history = train(make_net(), DATA, TRAINING, checkpoint=path)
    net = make_net()
    assert train(net, DATA, TRAINING, checkpoint=path, vary=stopping(0)) == history
    assert evaluate(net, DATA.test)[0] == history[-1]["test_error"]


@pytest.mark.parametrize("number", range(3), ids=["train", "valid", "test"])
def test_a_loss_that_is_not_finite_ends_the_run(number):
    splits = list(DATA)
    splits[number] = splits[number]._replace(inputs=splits[number].inputs * math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        train(make_net(), Data(*splits), TRAINING)


@pytest.mark.parametrize(
    "damage", ["cut", "foreign", "other net", "no document", "no history", "history of numbers", "half of Adam", "no Adam"]
)
def test_a_damaged_checkpoint_is_named_in_one_line(damage, tmp_path):
    path = tmp_path / "a.safetensors"
    train(make_net(), DATA, Training(1e-2, epochs=1, seed=0), checkpoint=path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "foreign":
        path.write_bytes(b"PK" * 100)
    elif damage == "no document":
        safetensors.torch.save_file({"net.0.weight": torch.zeros(1)}, path)
    elif damage != "other net":
        run, tensors = read_document(path), {}
        if damage == "half of Adam":  # torch itself would crash
            run["adam"] = {number: part | dict(exp_avg=part["exp_avg"][:1]) for number, part in run["adam"].items()}
        else:
            run |= {"no history": dict(history=None), "history of numbers": dict(history=[1, 2]), "no Adam": dict(adam={})}[
                damage
            ]
        write_document(path, pack(run, "run", tensors), tensors)
    net = layers(4, 9, 2, last_relu=False) if damage == "other net" else make_net()
    with pytest.raises(ValueError, match=r"a\.safetensors is no checkpoint of this run") as error:
        train(net, DATA, TRAINING, checkpoint=path)
    assert "\n" not in str(error.value)


def test_the_best_epoch_has_the_lowest_error_then_loss():
    rows = [(2.0, 0.1), (1.0, 0.5), (1.0, 0.4), (1.0, 0.6)]
    assert best_epoch([dict(valid_error=error, valid_loss=loss, test_error=9 - loss) for error, loss in rows]) == 3


def test_layers_start_within_one_over_the_root_of_their_outputs():
    net = layers(50, 100, 4, last_relu=False)
    assert [type(part).__name__ for part in net] == ["Linear", "ReLU", "Linear"]
    assert_close(net[0].weight.abs().max(), torch.tensor(0.1), rtol=0.01, atol=0)
    assert_close(net[2].weight.abs().max(), torch.tensor(0.5), rtol=0.05, atol=0)


INPUTS = {
    Retrieval: torch.zeros(3, 11, dtype=torch.int64),
    Digits: torch.zeros(3, 28, 28, dtype=torch.uint8),
    Expressions: torch.zeros(3, 48, 48, dtype=torch.uint8),
}
NETS = [(kind, row) for kind in INPUTS for row in kind.rows if kind.rows[row].cell != "rnn"]  # IRNN looks at its numbers


@pytest.mark.parametrize("kind, row", NETS)
def test_nets_and_examples_stay_on_their_device(kind, row):
    task, generator = kind(), torch.Generator().manual_seed(0)
    net = task.make_net(task.rows[row], 20).to("meta")
    assert net(task.vary(INPUTS[kind].to("meta"), generator)).device.type == "meta"
