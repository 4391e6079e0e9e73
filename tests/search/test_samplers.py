"""Continuous axes: intervals, and the samplers that draw from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from runner.search import samplers
from runner.search.intervals import Interval
from runner.search.samplers import Draw, Sampler, Sampling, draw_unit

EXTENSIBLE = [Sampler.SOBOL, Sampler.HALTON, Sampler.RANDOM]
SPACE = (Interval("lr", 1e-4, 1.0, is_log=True), Interval("wd", -1.0, 3.0), Interval("n", 1, 6, is_integer=True))


def draw(sampler, samples, seed=0):
    return Draw(SPACE, Sampling(sampler, samples, seed)).columns


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("samples", [1, 3, 64])
def test_points_lie_within_their_intervals_and_repeat(sampler, samples):
    columns = draw(sampler, samples)
    for interval, column in zip(SPACE, columns, strict=True):
        assert column.shape == (samples,)
        assert (column >= interval.low).all()
        assert (column <= interval.high).all()
    assert np.array_equal(columns[2], np.rint(columns[2]))
    assert all(map(np.array_equal, columns, draw(sampler, samples)))
    assert not np.array_equal(columns[0], draw(sampler, samples, seed=1)[0])


@pytest.mark.parametrize("sampler", EXTENSIBLE)
def test_more_points_begin_with_the_same_ones(sampler):
    assert all(np.array_equal(few, many[:50]) for few, many in zip(draw(sampler, 50), draw(sampler, 131), strict=True))


@pytest.mark.parametrize("sampler", [Sampler.SOBOL, Sampler.HALTON, Sampler.LHS])
def test_points_are_more_even_than_random_ones(sampler):
    """Each eighth of an axis has an eighth of 64 points, by the logarithm where that is the scale."""
    lr, wd, _ = draw(sampler, 64)
    for share in (np.log(lr / 1e-4) / np.log(1e4), (wd + 1) / 4):
        counts = np.histogram(share, bins=8, range=(0, 1))[0]
        assert abs(counts - 8).max() <= 1


def test_drawn_points_are_kept_and_drawn_again_if_the_file_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = draw_unit(Sampling(Sampler.SOBOL, 16, 0), 2)
    (kept,) = tmp_path.rglob("*.npy")
    monkeypatch.setitem(samplers._DRAW, Sampler.SOBOL, None)
    assert np.array_equal(draw_unit(Sampling(Sampler.SOBOL, 16, 0), 2), first)
    assert np.array_equal(draw_unit(Sampling(Sampler.SOBOL, 100, 0), 2)[:16], first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(draw_unit(Sampling(Sampler.SOBOL, 16, 0), 2), first)
    assert len(kept.read_bytes()) == samplers.USUAL_SAMPLES * 2 * 8 + 128


@pytest.mark.parametrize("sampler", [Sampler.SOBOL, Sampler.HALTON, Sampler.LHS])
def test_points_are_those_of_scipy_whatever_is_kept(sampler, tmp_path, monkeypatch):
    engines = {Sampler.SOBOL: qmc.Sobol, Sampler.HALTON: qmc.Halton, Sampler.LHS: qmc.LatinHypercube}
    expected = engines[sampler](3, rng=np.random.default_rng(5)).random(64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert np.array_equal(draw_unit(Sampling(sampler, 64, 5), 3), expected)
    assert np.array_equal(draw_unit(Sampling(sampler, 64, 5), 3), expected)


@given(st.integers(1, 50), st.integers(1, 200), st.booleans())
def test_integers_reach_both_bounds(low, width, is_log):
    interval = Interval("n", low, low + width, is_log, True)
    values = interval.scale(np.array([0.0, np.nextafter(1.0, 0.0)]))
    assert values.tolist() == [low, low + width]


def test_integers_are_equally_frequent():
    values = Interval("n", 1, 5, is_integer=True).scale((np.arange(1000) + 0.5) / 1000)
    assert np.bincount(values.astype(int))[1:].tolist() == [200] * 5


def test_a_sobol_study_is_extended_and_crossed_with_seeds(toy):
    call = ["-m", "task=noisy", "level=interval(0,1)", "seed=range(0,3)", "study=s"]
    first = toy(*call, "hydra.sweeper.samples=4")
    assert first.status == 0, first.err
    assert len(first.frame) == 12
    again = toy(*call, "hydra.sweeper.samples=4")
    assert "12 of them already there" in again.out
    toy(*call, "hydra.sweeper.samples=8")
    whole = toy(*call[:-1], "study=whole", "hydra.sweeper.samples=8")
    assert first.csv == whole.csv
    assert first.frame["level"].nunique() == 8
    assert first.frame["level"].between(0, 1).all()


@pytest.mark.matrix
def test_intervals_are_crossed_with_choices_and_static_integers(toy):
    called = toy(
        "-m", "task=noisy", "level=tag(log,interval(0.1,10))", "steps=tag(int,interval(1,3))", "seed=0,1",
        "hydra.sweeper.samples=6", "hydra.sweeper.sampler=halton", "study=s",
    )  # fmt: skip
    assert called.status == 0, called.err
    frame = called.frame
    assert len(frame) == 12
    assert frame.groupby("level")["steps"].nunique().max() == 1  # drawn together, not crossed
    assert set(frame["steps"]) <= {1, 2, 3}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hydra.sweeper.sampler=halton", "sampler was 'sobol', is 'halton'"),
        ("hydra.sweeper.sampler_seed=1", "sampler_seed was 0, is 1"),
        ("level=interval(0,2)", "space was 'level=interval(0,1)', is 'level=interval(0,2)'"),
    ],
)
def test_another_space_or_sampler_is_another_study(toy, change, message):
    call = ["-m", "task=noisy", "level=interval(0,1)", "hydra.sweeper.samples=2", "study=s"]
    assert toy(*call).status == 0
    called = toy(*call, change)
    assert called.status == 2
    assert message in called.err


@pytest.mark.matrix
def test_a_latin_hypercube_says_that_it_cannot_be_extended(toy):
    call = ["-m", "task=noisy", "level=interval(0,1)", "hydra.sweeper.sampler=lhs", "study=s"]
    assert toy(*call, "hydra.sweeper.samples=4").status == 0
    called = toy(*call, "hydra.sweeper.samples=8")
    assert called.status == 2
    assert "a Latin hypercube, which cannot be extended, was 4, is 8" in called.err


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["level=interval(0,1)"], "an interval has no discrete values; hydra.sweeper.samples=N draws some"),
        (["level=0,1", "hydra.sweeper.samples=4"], "draws nothing: no key is swept over an interval"),
        (["level=interval(1,0)", "hydra.sweeper.samples=4"], "the first bound must be below the second"),
        (["level=interval(1,1)", "hydra.sweeper.samples=4"], "the first bound must be below the second"),
        (["level=tag(log,interval(0,1))", "hydra.sweeper.samples=4"], "must lie above 0"),
        (["level=interval(0,inf)", "hydra.sweeper.samples=4"], "must be finite"),
        (["level=tag(lgo,interval(0,1))", "hydra.sweeper.samples=4"], "no tag 'lgo'; its tags are: log, int"),
        (["steps=tag(int,interval(1.5,3))", "hydra.sweeper.samples=4"], "must be integers"),
        (["steps=interval(1,3)", "hydra.sweeper.samples=4"], "steps must be an integer"),
        (["task=interval(0,1)", "hydra.sweeper.samples=4"], "is a config group"),
        (["level=1,2", "hydra.sweeper.objective=score"], "objective is of use to hydra.sweeper.halving only"),
        (["level=1,2", "hydra/launcher=lanes"], "hydra/launcher=lanes is for the sweepers of others"),
        (["level=interval(0,1)", "hydra.sweeper.samples=0"], "samples must be an integer from 1"),
        (["level=interval(0,1)", "hydra.sweeper.samples=x"], "samples must be an integer from 1"),
        (["level=interval(0,1)", "hydra.sweeper.samples=4", "hydra.sweeper.sampler=sobal"], "must be one of sobol"),
        (["level=interval(0,1)", "hydra.sweeper.samples=4", "hydra.sweeper.sampler_seed=-1"], "sampler_seed must be"),
        (
            ["level=interval(0,1)", "seed=0,1", "hydra.sweeper.samples=2", "hydra.sweeper.zip=[level,seed]"],
            "zip names 'level', whose values are drawn",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(toy, arguments, message):
    called = toy("-m", "task=noisy", *arguments, "study=s")
    assert called.status == 2
    assert message in called.err
    assert "Error in call" not in called.err  # as Hydra tells what a sweeper refuses
    assert called.folder is None
