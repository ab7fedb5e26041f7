"""The 24 glimpses cover an image at both scales, and the memory does what their signals say."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fw_rl.tasks import digits
from fw_rl.tasks.base import Row
from fw_rl.tasks.digits import Digits
from fw_rl.tasks.glimpse import GLIMPSES, ConvNet, cut_patches, look, make_glimpse_net, shift, standardise
from fw_rl.tasks.runs import Run
from fw_rl.tasks.training import Training

ROWS = Digits.rows


def numbered_image(size=28):
    """Every pixel has a value of its own."""
    return torch.arange(size * size, dtype=torch.float32).view(1, size, size)


def random_images(count=3, size=28, seed=0):
    return torch.randint(256, (count, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_there_are_24_glimpses_in_four_quadrants():
    assert len(GLIMPSES) == 24
    for number in range(4):
        steps = GLIMPSES[6 * number : 6 * number + 6]
        assert {step.quadrant for step in steps} == {number}
        assert [step.part for step in steps] == [None, 0, 1, 2, 3, None]


@pytest.mark.parametrize("size", [28, 48])
def test_the_fine_glimpses_cover_every_pixel_once(size):
    image = numbered_image(size)
    seen = look(image).squeeze(1)
    fine = torch.cat([patch for step, patch in zip(GLIMPSES, seen, strict=True) if step.part is not None])
    assert torch.equal(fine.sort().values, image.flatten())


@pytest.mark.parametrize("first", [True, False], ids=["first look", "second look"])
def test_the_coarse_glimpses_cover_the_image_at_half_the_resolution(first):
    image = numbered_image()
    halved = F.avg_pool2d(image, 2).flatten()
    coarse = [patch for step, patch in zip(GLIMPSES, look(image).squeeze(1), strict=True) if step.part is None]
    assert torch.equal(torch.cat(coarse[0 if first else 1 :: 2]).sort().values, halved.sort().values)


def test_a_glimpse_is_the_part_that_it_names():
    image, seen = numbered_image(), look(numbered_image()).view(24, 7, 7)
    for step, patch in zip(GLIMPSES, seen, strict=True):
        top, left = 14 * (step.quadrant // 2), 14 * (step.quadrant % 2)
        quadrant = image[0, top : top + 14, left : left + 14]
        if step.part is None:
            expected = F.avg_pool2d(quadrant[None], 2)[0]
        else:
            top, left = 7 * (step.part // 2), 7 * (step.part % 2)
            expected = quadrant[top : top + 7, left : left + 7]
        assert torch.equal(patch, expected)


def test_rows_of_a_batch_do_not_mix():
    images = random_images().float()
    assert torch.equal(look(images)[:, 1:2], look(images[1:2]))


def test_signals_store_the_coarse_level_and_wipe_between_levels():
    for number in range(4):
        first, *fine, last = GLIMPSES[6 * number : 6 * number + 6]
        assert (first.store, first.wipe, first.integrate) == (True, True, False)
        assert [(step.store, step.wipe, step.integrate) for step in fine] == [(False, False, False)] * 3 + [
            (False, True, False)
        ]
        assert (last.store, last.wipe, last.integrate) == (False, False, True)


def by_hand(net, images):
    """The multi-level memory in float64 with an explicit matrix A for each image, step by step as the signals say."""
    parameters = {name: value.detach().double().numpy() for name, value in net.cell.named_parameters()}
    C, V = np.split(parameters["input_map.weight"], [100], axis=1)
    x, outputs = net.embedding(images).detach().double().numpy(), []
    for row in range(len(images)):
        h, found, A = np.zeros(len(V)), np.zeros(len(V)), np.zeros((len(V), len(V)))
        for step, driven in zip(GLIMPSES, x[:, row], strict=True):
            boundary = C @ driven + parameters["input_map.bias"] + parameters["recurrent_map.weight"] @ h
            if step.integrate:
                boundary = boundary + V @ found
            coarse = step.part is None
            summed = boundary + (A @ np.maximum(boundary, 0) if coarse else 0)
            normed = (summed - summed.mean()) / np.sqrt(summed.var() + 1e-5)
            h = np.maximum(parameters["norm.weight"] * normed + parameters["norm.bias"], 0)
            if coarse:
                A = net.cell.decay * A + (net.cell.eta * np.outer(h, h) if step.store else 0)
            found = h
            if step.wipe:
                h = np.zeros(len(V))
        outputs.append(found)
    return torch.from_numpy(np.array(outputs))


def test_the_multi_level_net_does_what_the_signals_say():
    torch.manual_seed(0)
    net = make_glimpse_net(ROWS["fast-weights"], 12, 49, 10, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    images = random_images()
    last = []
    net.head.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0]))
    net(images)
    assert_close(last[0].double(), by_hand(net, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level, signal", [("coarse", 0), ("coarse", 1), ("coarse", 2), ("fine", 0), ("fine", 1)])
def test_every_signal_has_an_influence(level, signal):
    torch.manual_seed(0)
    net, images = make_glimpse_net(ROWS["fast-weights"], 12, 49, 10, 3), random_images()
    expected = net(images)
    getattr(net, level)[:, signal].logical_not_()
    assert (net(images) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("size, classes, depth", [(28, 10, 3), (48, 6, 2)], ids=["digits", "faces"])
def test_every_row_sees_every_pixel_and_learns_everywhere(name, size, classes, depth):
    torch.manual_seed(1)
    net = make_glimpse_net(ROWS[name], 16, (size // 4) ** 2, classes, depth)
    images = random_images(8, size)
    logits = net(images)
    assert logits.shape == (8, classes)
    F.cross_entropy(logits, torch.arange(8) % classes).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), parameter_name
    for row, column in itertools.product(range(size // 8, size, size // 4), repeat=2):
        changed = images.clone()
        changed[:, row, column : column + 2] ^= 255
        assert not torch.equal(net(changed), logits)


def test_the_convnet_is_a_convolution_over_the_pixels():
    """Layer 1 on the fine scale, written as `conv2d` with a stride of its kernel's size."""
    net, images = ConvNet(49, 8, 10, depth=3).double(), random_images(2)
    linear = net.patch[0]
    kernel = linear.weight.view(8, 1, 7, 7)
    expected = F.conv2d(images.unsqueeze(1).double(), kernel, linear.bias, stride=7)
    fine = linear(cut_patches(images.double())[4:])
    for quadrant, part in itertools.product(range(4), range(4)):
        row, column = 2 * (quadrant // 2) + part // 2, 2 * (quadrant % 2) + part % 2
        assert_close(fine[4 * quadrant + part], expected[:, :, row, column])


def test_images_are_standardised_each_by_itself():
    images = random_images()
    pixels = standardise(images).flatten(1)
    assert_close(pixels.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(pixels.std(1), torch.ones(3), rtol=1e-3, atol=0)
    assert_close(standardise(images // 4 + 20), standardise(images), rtol=0, atol=0.03)
    assert not standardise(torch.full((1, 28, 28), 9, dtype=torch.uint8)).any()


def test_shifted_images_are_moved_and_nothing_else():
    image = torch.zeros(64, 28, 28, dtype=torch.uint8)
    image[:, 14, 14] = 200
    moved = shift(image, torch.Generator().manual_seed(0), 2)
    assert moved.dtype == torch.uint8
    places = moved.nonzero()
    assert len(places) == 64
    offsets = places[:, 1:] - 14
    assert {tuple(offset) for offset in offsets.tolist()} <= set(itertools.product(range(-2, 3), repeat=2))
    assert len({tuple(offset) for offset in offsets.tolist()}) > 15


def test_the_convnet_takes_no_options():
    task = Digits()
    with pytest.raises(ValueError, match="the ConvNet has no option 'eta'"):
        task.make_net(task.row("convnet", dict(eta=1)), 8)


@pytest.mark.parametrize("name", ["fast-weights", "one-level"])
def test_eta_is_shared_among_the_units_unless_it_is_given(name):
    task = Digits()
    for options, size, eta in (({}, 50, 0.02), ({}, 200, 0.005), (dict(eta=0.3), 200, 0.3)):
        run = Run(task, name, size, Training(0.001, epochs=1, seed=0), options)
        net = task.make_net(task.row(name, options), size)
        assert net.cell.eta == run.settings["cell_options"]["eta"] == eta


@pytest.mark.parametrize("most_shift", [-1, 9])
def test_a_shift_out_of_the_picture_is_refused(most_shift):
    with pytest.raises(ValueError, match="most_shift must be between 0 and 8 pixels, got"):
        Digits(most_shift=most_shift)


def test_digits_are_split_into_training_validation_and_test(monkeypatch):
    images = np.zeros((6000, 28, 28), np.uint8)
    labels = np.arange(6000, dtype=np.uint8) % 10
    monkeypatch.setattr(digits, "load_mnist", lambda folder: (images, labels, images[:7], labels[:7]))
    data = Digits().load()
    assert [len(split.labels) for split in data] == [1000, 5000, 7]
    assert torch.equal(torch.cat([data.train.labels, data.valid.labels]), torch.from_numpy(labels).long())


def test_the_multi_level_net_needs_a_gated_cell():
    with pytest.raises(ValueError, match="must take a write gate and a wipe, got LSTMCell"):
        make_glimpse_net(Row("LSTM", "lstm", net="multi-level"), 8, 49, 10, 3)
