"""Drawn faces, and the loader of Multi-PIE on files with the names and folders of the data set."""

import itertools
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fw_rl.tasks.drawn_faces import ACTIONS, EXPRESSIONS, draw, draw_people, pose_people
from fw_rl.tasks.faces import Expressions, make_drawn_faces, split_by_person
from fw_rl.tasks.multi_pie import EXPRESSION_OF, Faces, load_multi_pie


class NoNoise:
    def normal(self, mean, spread, shape):
        return np.zeros(shape)


def average_face(expression=0, view=0.0):
    """Everybody's mean, without noise."""
    random = np.random.default_rng(0)
    people = {name: values.mean(keepdims=True) for name, values in draw_people(2000, random).items()}
    picture = {name: values[:1] for name, values in pose_people(people, np.array([expression]), random).items()}
    for name, values in ACTIONS.items():
        picture[name] = np.array([values[expression]], np.float32)
    picture |= {name: np.zeros(1, np.float32) for name in ("shift_x", "shift_y", "turn")}
    nothing = np.zeros(1, np.float32)
    return draw(picture, nothing + view, nothing, nothing, NoNoise())[0].astype(float)


def test_faces_are_pictures_of_bytes_with_some_contrast():
    faces = make_drawn_faces(people=3, lights=2)
    assert faces.images.shape == (3 * 11 * 3 * 2, 48, 48)
    assert faces.images.dtype == np.uint8
    assert (faces.images.std(axis=(1, 2)) > 10).all()


def test_labels_are_as_unbalanced_as_in_multi_pie():
    faces = make_drawn_faces(people=2, lights=1)
    counts = np.bincount(faces.expressions)
    assert (counts * 11 == np.bincount(list(EXPRESSION_OF.values())) * counts.sum()).all()
    assert np.bincount(faces.people)[1:].tolist() == [33, 33]


def test_drawing_is_the_same_every_time_and_differs_by_seed():
    faces, again, other = (make_drawn_faces(people=1, lights=1, seed=seed) for seed in (0, 0, 1))
    assert (faces.images == again.images).all()
    assert (faces.images != other.images).any()


@pytest.mark.parametrize("first, second", list(itertools.combinations(range(6), 2)))
def test_expressions_look_different(first, second):
    assert np.abs(average_face(first) - average_face(second)).mean() > 1.0


def test_actions_change_the_part_of_the_face_that_they_should():
    neutral = average_face(0)
    surprise, scream = (np.abs(average_face(number) - neutral) for number in (2, 5))
    assert scream[30:44].mean() > 3 * scream[:10].mean()  # the mouth, not the hair
    assert surprise[12:24].mean() > 3 * surprise[:10].mean()  # eyes and brows


def test_views_from_the_left_and_the_right_are_mirror_images():
    left, right = (average_face(0, view=sign * np.radians(15)) for sign in (-1, 1))
    assert np.abs(left[:, ::-1] - right).mean() < 0.2 * np.abs(left - right).mean()


def test_no_person_is_in_two_splits():
    numbers = np.arange(50).repeat(3)
    images = np.zeros((150, 48, 48), np.uint8)
    images[:, 0, 0] = numbers
    data = split_by_person(Faces(images, numbers, numbers % 6))
    people = [set(split.inputs[:, 0, 0].tolist()) for split in data]
    assert [len(group) for group in people] == [10, 20, 20]
    assert set.union(*people) == set(range(50))
    for split in data:
        assert torch.equal(split.labels, split.inputs[:, 0, 0].long() % 6)


def test_the_papers_337_people_are_split_317_to_20():
    numbers = np.arange(337)
    data = split_by_person(Faces(np.zeros((337, 48, 48), np.uint8), numbers, numbers % 6))
    assert (len(data.train.labels) + len(data.valid.labels), len(data.test.labels)) == (317, 20)


def write_image(path, grey=100, size=(96, 96)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


def multi_pie_path(root, person, session, recording, camera, light=7):
    folder = root / f"session{session:02}" / "multiview" / f"{person:03}" / f"{recording:02}" / f"{camera[:2]}_{camera[2]}"
    return folder / f"{person:03}_{session:02}_{recording:02}_{camera}_{light:02}.png"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Multi-PIE's folders for 41 people: one recording of most, all recordings of the first, and more than is used."""
    root = tmp_path_factory.mktemp("multi-pie")
    for person in range(2, 42):
        write_image(multi_pie_path(root, person, 1, 2, "051"), grey=person)
    for (session, recording), camera in itertools.product(EXPRESSION_OF, ("051", "050", "140", "130", "190")):
        write_image(multi_pie_path(root, 1, session, recording, camera), grey=10 * session + recording)
    (root / "notes.txt").write_text("not an image")
    (root / "session01" / "001_01_01_051.png").write_text("a name of another form")
    return root


def test_multi_pie_is_found_by_its_names(tree):
    faces = load_multi_pie(tree)
    assert faces.images.shape == (40 + 11 * 3, 48, 48)
    assert sorted(set(faces.people.tolist())) == list(range(1, 42))
    assert (faces.expressions[faces.people > 1] == EXPRESSIONS.index("smile")).all()
    assert (faces.images[faces.people == 7] == 7).all()


def test_recordings_have_the_expressions_of_multi_pie(tree):
    faces = load_multi_pie(tree)
    mine = faces.people == 1
    by_grey = dict(zip(faces.images[mine][:, 0, 0].tolist(), faces.expressions[mine].tolist(), strict=True))
    names = {grey: EXPRESSIONS[number] for grey, number in by_grey.items()}
    assert names == {
        **{11: "neutral", 21: "neutral", 31: "neutral", 41: "neutral", 42: "neutral"},
        **{12: "smile", 32: "smile", 22: "surprise", 23: "squint", 33: "disgust", 43: "scream"},
    }


def test_the_task_splits_a_users_copy(tree):
    task = Expressions(tree)
    assert re.fullmatch("CMU Multi-PIE, 73 images of 41 people, copy [0-9a-f]{8}", task.data_name)
    data = task.load()
    assert len(torch.cat([split.labels for split in data])) == 73


def test_another_copy_has_another_name(tree, tmp_path):
    write_image(multi_pie_path(tmp_path, 1, 1, 1, "051"))
    one = Expressions(tmp_path).data_name
    assert one.startswith("CMU Multi-PIE, 1 images of 1 people")
    moved = tmp_path / "moved"
    write_image(multi_pie_path(moved, 1, 1, 1, "051"))
    assert Expressions(moved).data_name == one  # it does not matter where it lies
    assert Expressions(tree).data_name != one


def test_the_table_says_when_faces_are_drawn():
    assert "drawn faces" in Expressions().data_name


def test_an_empty_folder_is_no_multi_pie(tmp_path):
    with pytest.raises(ValueError, match="holds no image of Multi-PIE's central cameras"):
        load_multi_pie(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        load_multi_pie(tmp_path / "nowhere")


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    path = multi_pie_path(tmp_path, 1, 1, 1, "051")
    write_image(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"001_01_01_051_07\.png cannot be read as an image"):
        load_multi_pie(tmp_path)


def test_a_picture_that_is_not_cropped_is_named(tmp_path):
    write_image(multi_pie_path(tmp_path, 1, 1, 1, "051"), size=(64, 48))
    with pytest.raises(ValueError, match=r"must be a square, .*got 64 x 48"):
        load_multi_pie(tmp_path)


def test_too_few_people_are_refused(tmp_path):
    for person in range(1, 41):
        write_image(multi_pie_path(tmp_path, person, 1, 1, "051"), size=(8, 8))
    with pytest.raises(ValueError, match="people must be more than 40, 20 to test and 20 to validate, got 40"):
        Expressions(tmp_path).load()
