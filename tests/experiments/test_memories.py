"""The table of memories: which trainings there are, what they come to beside the paper, and where answers lay."""

import numpy as np
import pytest

from fw_rl.envs import GameEnv, RetrievalGame
from fw_rl.envs.popgym import Autoencode, RepeatFirst, RepeatPrevious
from fw_rl.experiments.memories import EPOCH, Published, jobs, published, settings_by_cell, summarise
from fw_rl.experiments.memories_attention import Recall, answer_steps, draw_recalls
from fw_rl.experiments.memories_report import describe, draw_curves, draw_scores
from fw_rl.experiments.search.learning import Learning
from fw_rl.experiments.settings import resolve
from tests.commands.helpers import rows

GAME, CELL = "RepeatPreviousMedium", "lru"  # of which the paper has -0.315 and 0.789


def learning(*returns, game=GAME, cell=CELL, seed=0, seconds=30.0, diverged=False):
    """A training of 300 frames that came to this curve, without having been one."""
    settings = dict(seed=seed, timesteps=3 * EPOCH)
    return Learning(settings, dict(game=game, cell=cell), list(returns), 0.0, seconds, diverged)


def of_cell(*learnings):
    return summarise(learnings)["games"][GAME]["cells"][CELL]


def test_one_set_of_settings_for_a_cell_in_all_games(tmp_path):
    wanted = jobs(["Retrieval-4", "RepeatFirstEasy", "Retrieval-4-gap2"], ["lru", "delta-net"], [0, 1], 9000, tmp_path)
    assert len({job.folder for job in wanted}) == len(wanted) == 12
    for cell in ("lru", "delta-net"):
        settings = [vars(job.config) | dict(env="", seed=0) for job in wanted if job.config.cell == cell]
        assert all(one == settings[0] for one in settings)
        assert (settings_by_cell()[cell] | dict(timesteps=9000)).items() <= settings[0].items()
    assert {job.config.timesteps for job in wanted} == {9000}


def test_the_training_command_has_the_same_settings(tmp_path):
    (job,) = jobs(["RepeatPreviousMedium"], ["lru-delta-net"], [3], 1_500_000, tmp_path)
    assert job.config == resolve(env="RepeatPreviousMedium", cell="lru-delta-net", seed=3)


def test_trainings_come_seed_by_seed_and_once(tmp_path):
    wanted = jobs(["Retrieval-4", "fw_rl/Retrieval-4-v0"], ["gru"], [3, 1, 3], 9000, tmp_path)
    assert [job.folder for job in wanted] == [tmp_path / "agents" / f"Retrieval-4_gru_9000_seed{seed}" for seed in (3, 1)]


def test_all_games_and_cells_of_the_table_exist(tmp_path):
    assert len(jobs(tuple(published()), ["lru"], [0], 9000, tmp_path)) == len(published())
    assert len(jobs(["Retrieval-4"], tuple(settings_by_cell()), [0], 9000, tmp_path)) == len(settings_by_cell())
    assert published()[GAME] == Published(gru=-0.315, best=0.789)
    assert all(paper.gru <= paper.best for paper in published().values() if paper)


def test_the_score_is_the_mean_of_the_best_returns():
    found = of_cell(learning(-0.5, 0.4, 0.2, seed=1), learning(-0.4, None, 0.8))
    assert found["seeds"] == [0, 1]
    assert found["best"] == [0.8, 0.4]
    assert found["estimate"] == pytest.approx([0.6, 0.6 - 12.7062 * 0.2, 0.6 + 12.7062 * 0.2], abs=1e-4)
    assert found["curve"][0] == pytest.approx([-0.45, 0.0, 0.5])
    assert found["frames"] == [EPOCH, 2 * EPOCH, 3 * EPOCH]


def test_the_best_epoch_is_no_lucky_part_of_one():
    lucky = [0.0] * 29 + [1.0]
    assert of_cell(learning(*lucky))["best"] == [pytest.approx(0.1)]


def test_seconds_are_those_until_the_paper_s_best():
    """0.789 less 0.005 is reached after two of three epochs and 20 of 30 seconds; the median of three is that of the first."""
    found = of_cell(learning(0, 0.784, 1), learning(0.9, 0, 0, seed=1, seconds=60.0), learning(0, 0, 0.7, seed=2))
    assert (found["seconds_to_paper"], found["reached_paper"]) == (20.0, 2)
    assert found["frames_per_second"] == EPOCH / 10
    assert of_cell(learning(0, 0.783, 0))["seconds_to_paper"] is None


def test_a_game_of_ours_has_no_paper_beside_it():
    record = summarise([learning(0.5, game="Retrieval-8")])
    assert record["games"]["Retrieval-8"]["paper"] is None
    assert record["games"]["Retrieval-8"]["cells"][CELL]["seconds_to_paper"] is None


@pytest.fixture
def record():
    """Two cells and two games; one cell has a game more than the other, and a seed that diverged before an episode's end."""
    found = [
        learning(0.1, 0.784, game=GAME),
        learning(0.3, 0.8, game=GAME, seed=1),
        learning(0.2, 0.4, game="Retrieval-8"),
        learning(-0.5, -0.4, game=GAME, cell="gru"),
        learning(None, None, game=GAME, cell="gru", seed=1, diverged=True),
    ]
    return dict(command="fw-rl memories") | summarise(found)


def test_the_tables_say_what_is_known(record):
    text = rows(describe(record))
    assert "| game | paper: GRU | paper: best of 13 | lru | gru |" in text
    assert "| RepeatPreviousMedium | -0.315 | 0.789 | 0.792 (0.690 to 0.894) | |" in text
    assert "| Retrieval-8 | | | 0.400 | |" in text
    assert "| mean of all | | | 0.596 | |" in text
    assert "| at the paper's best | | | 1 of 1 | 0 of 1 |" in text
    assert "| RepeatPreviousMedium | 30 (2 of 2) | not reached (0 of 2) |" in text
    assert "gru in RepeatPreviousMedium: 1." in " ".join(text)


def test_pictures_are_drawn_of_whatever_is_known(record):
    assert draw_scores(record)[:4] == draw_curves(record)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("game", "rules"),
    [(RetrievalGame, dict(pairs=5, gap=2)), (RepeatPrevious, dict(num_decks=1, k=7)), (RepeatFirst, dict(num_decks=1))],
)
def test_who_looks_where_the_answers_lay_is_always_right(game, rules):
    """And at the first step of RepeatFirst, where the answer is seen at once."""
    env = GameEnv(game, **rules)
    observation, _ = env.reset(seed=3)
    seen, total, ended = [], 0.0, False
    while not ended:
        seen.append(observation)
        lay = dict(answer_steps(env.game, seen)).get(len(seen) - 1, -1)
        answer = np.ravel(seen[lay])[-1] - (game is RetrievalGame)
        observation, reward, ended, _, _ = env.step(max(answer, 0))
        total += reward
    assert total == pytest.approx(1)


def test_other_games_have_no_such_steps():
    assert answer_steps(Autoencode(), [np.zeros(2, int)] * 5) == []


def test_the_share_is_the_mean_over_the_answers():
    shares = np.array([[0, 0, 0], [1, 0, 0], [0.3, 0.7, 0]])
    one = Recall("Retrieval-1", CELL, shares, [(1, 0), (2, 0)])
    assert one.share == pytest.approx(0.65)
    assert one.hits == 1
    assert draw_recalls([one, one._replace(cell="gru"), one._replace(game="Retrieval-2")])[:4] == b"\x89PNG"
