"""Data sets, splits, label noise, normalisation, batch order: laws for any seed and size."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.datasets import knobs
from tests.helpers import small_data
from trainer.config import ConfigError
from trainer.core import data
from trainer.core.data import EpochOrder, assemble, batch_slices, split, stratified_order


def classes(counts: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


# ------------------------------------------------------------------ data sets


def test_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    ours = data.load(knobs(normalisation="none"), dtype=torch.float64)
    rows = torch.cat([ours.x, ours.test_x]).numpy()
    labels = torch.cat([ours.y, ours.test_y]).numpy()
    expected = sorted(map(tuple, np.column_stack([theirs.data, theirs.target]).tolist()))
    assert sorted(map(tuple, np.column_stack([rows, labels]).tolist())) == expected
    assert (len(ours.x), len(ours.test_x), ours.shape, ours.classes) == (1617, 180, (1, 8, 8), 10)


def test_the_digits_test_split_is_stratified_and_fixed() -> None:
    ours = data.load(knobs())
    assert torch.bincount(ours.test_y).tolist() == pytest.approx([18] * 10, abs=1)
    assert ours.hash == "ae311ed74570f9a8"
    assert data.load(knobs(normalisation="unit", batch_size=7)).hash == ours.hash  # of the raw values


@pytest.mark.parametrize("name", ["spirals", "line", "clusters"])
def test_generated_data_is_the_same_every_time_and_whatever_the_global_generators(name: str) -> None:
    np.random.seed(1)  # noqa: NPY002
    first = data.load(knobs(f"data={name}"))
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    second = data.load(knobs(f"data={name}"))
    assert first.hash == second.hash
    assert torch.equal(first.x, second.x)
    assert len(first.test_x) == round(0.2 * (len(first.x) + len(first.test_x)))
    assert data.load(knobs(f"data={name}", noise=0.2)).hash != first.hash


def test_line_is_a_regression_on_2x_plus_1() -> None:
    """The least-squares line through 10,000 points: slope and intercept to 5 standard errors."""
    ours = data.load(knobs("data=line", examples=10_000, noise=0.1), dtype=torch.float64)
    assert (ours.classes, ours.out_features, ours.y.shape) == (None, 1, (8000, 1))
    design = torch.cat([ours.x, torch.ones_like(ours.x)], 1)
    slope, intercept = torch.linalg.lstsq(design, ours.y).solution.flatten().tolist()
    error = 0.1 / math.sqrt(8000)
    assert abs(slope - 2) < 5 * error * math.sqrt(3)  # the variance of x is 1/3
    assert abs(intercept - 1) < 5 * error
    part = split(ours, knobs("data=line"), 0)
    assert torch.equal(part.train_y, ours.y[part.train])
    assert len(set(part.train.tolist()) | set(part.val.tolist())) == 8000


def test_spirals_without_noise_lie_on_three_arms() -> None:
    ours = data.load(knobs("data=spirals", noise=0.0, normalisation="none"), dtype=torch.float64)
    radius = ours.x.norm(dim=1)
    angle = torch.atan2(ours.x[:, 1], ours.x[:, 0]) - 4 * radius - 2 * math.pi / 3 * ours.y
    torch.testing.assert_close(torch.cos(angle), torch.ones_like(angle), rtol=0, atol=1e-12)
    assert torch.bincount(ours.y).min() > 200


def test_clusters_scatter_around_their_centres() -> None:
    ours = data.load(knobs("data=clusters", examples=20000, noise=0.3, normalisation="none"), dtype=torch.float64)
    assert (ours.in_features, ours.classes) == (4, 10)
    inside = torch.stack([ours.x[ours.y == label].var(0) for label in range(10)])
    torch.testing.assert_close(inside, torch.full((10, 4), 0.09, dtype=torch.float64), rtol=0.2, atol=0)
    centres = torch.stack([ours.x[ours.y == label].mean(0) for label in range(10)])
    assert torch.pdist(centres).min() > 0.3


# ------------------------------------------------------------------ raw values


@pytest.mark.parametrize(
    ("which", "place", "message"),
    [
        (0, (3, 0, 1, 1), "data: 2 values of the inputs of digits are not finite, the first at (3, 0, 1, 1)"),
        (2, (1, 0, 0, 0), "data: 2 values of the test inputs of digits are not finite, the first at (1, 0, 0, 0)"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(which: int, place: tuple[int, ...], message: str, value: float) -> None:
    arrays = [
        np.zeros((6, 1, 2, 2), np.float32),
        np.arange(6) % 2,
        np.zeros((3, 1, 2, 2), np.float32),
        np.arange(3) % 2,
    ]
    arrays[which][place] = value
    arrays[which][-1, 0, 1, 1] = np.nan
    before = [a.copy() for a in arrays]
    with pytest.raises(ConfigError) as caught:
        assemble(knobs(), *arrays)
    assert str(caught.value) == message + "; expected finite numbers; repair or drop these examples"
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("normalisation", ["none", "unit", "standard"])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
def test_normalisation_uses_the_statistics_of_the_non_test_examples(normalisation: str, shape: tuple[int, ...]) -> None:
    """Per channel for pictures, per feature otherwise; a constant feature stays finite. Tolerance: float64 sums."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (40, *shape))
    test_x = rng.normal(-20, 50, (10, *shape))
    x[:, 0] = 7.0  # a constant feature, or channel
    kept = x.copy()
    y, test_y = rng.integers(0, 2, 40), rng.integers(0, 2, 10)
    ours = assemble(knobs(normalisation=normalisation), x, y, test_x, test_y, dtype=torch.float64)
    np.testing.assert_array_equal(x, kept)  # the caller's array is the caller's
    axes = (0, 2, 3) if len(shape) == 3 else (0,)
    shift = {"none": 0.0, "unit": kept.min(axes, keepdims=True), "standard": kept.mean(axes, keepdims=True)}
    scale = {"none": 1.0, "unit": np.ptp(kept, axes, keepdims=True), "standard": kept.std(axes, keepdims=True)}
    s = np.where(scale[normalisation] == 0, 1, scale[normalisation])
    for got, raw in ((ours.x, kept), (ours.test_x, test_x)):
        want = ((raw - shift[normalisation]) / s).reshape(len(raw), -1)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-10, atol=1e-10)
    raw = ours.x * ours.scale + ours.shift  # x = (raw - shift) / scale, as the checkpoint promises
    np.testing.assert_allclose(raw.numpy(), kept.reshape(40, -1), rtol=1e-10)


@pytest.mark.parametrize("normalisation", ["unit", "standard"])
@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
def test_what_never_varies_is_exactly_zero(normalisation: str, shape: tuple[int, ...]) -> None:
    """Also where 0.1 cannot be written in binary, and in a picture whose other pixels vary."""
    x = np.random.default_rng(0).normal(3, 5, (40, 4)).astype(np.float32)
    x[:, 0] = 0.1
    test_x = x[:10].copy()
    test_x[0, 0] = 0.3
    y = np.arange(40) % 2
    ours = assemble(knobs(normalisation=normalisation), x.reshape(-1, *shape), y, test_x.reshape(-1, *shape), y[:10])
    assert (ours.x[:, 0] == 0).all()
    assert (ours.test_x[1:, 0] == 0).all()
    assert ours.test_x[0, 0] > 0
    assert (ours.x[:, 1:].std(0) > 0).all()


# ------------------------------------------------------------------ splits


@settings(max_examples=200, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 2**31))
def test_stratified_order_holds_each_class_in_proportion_in_every_prefix(counts: list[int], seed: int) -> None:
    labels = classes(counts)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    order = stratified_order(labels, torch.Generator().manual_seed(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    in_prefix = torch.nn.functional.one_hot(labels[order], len(counts)).cumsum(0)
    # cut at any quantile q, a prefix holds q * size of each class to within one
    share = in_prefix / torch.tensor(counts)
    spread = 1 / torch.tensor(counts)
    low, high = (share - spread).max(1).values, (share + spread).min(1).values
    assert (low <= high + 1e-9).all()


@pytest.mark.parametrize("counts", [[100, 100], [10] * 10, [500, 5], [1, 1, 1], [7]])
def test_stratified_order_is_random_within_and_between_classes(counts: list[int]) -> None:
    """The first example is any of them, each equally often: 2,000 seeds, 5 standard deviations."""
    labels = classes(counts)
    firsts = [int(stratified_order(labels, torch.Generator().manual_seed(s))[0]) for s in range(2000)]
    by_class = torch.bincount(labels[firsts], minlength=len(counts))
    rows = torch.bincount(torch.tensor(firsts), minlength=len(labels))
    for c, size in enumerate(counts):
        mean = by_class[c].item() / size
        assert (rows[labels == c] - mean).abs().max() <= 5 * math.sqrt(mean + 1)


@settings(max_examples=60, deadline=None)
@given(fraction=st.floats(0, 0.9), seed=st.integers(0, 10**6), size=st.integers(1, 97))
def test_train_sizes_are_nested_and_validation_does_not_depend_on_them(fraction: float, seed: int, size: int) -> None:
    y = np.arange(97) % 4
    dataset = assemble(knobs(), np.zeros((97, 1)), y, np.zeros((1, 1)), y[:1])
    full = split(dataset, knobs(val_fraction=fraction), seed)
    assert sorted([*full.train.tolist(), *full.val.tolist()]) == list(range(97))
    size = min(size, len(full.train))
    part = split(dataset, knobs(val_fraction=fraction, train_size=size), seed)
    assert torch.equal(part.val, full.val)
    assert torch.equal(part.train, full.train[:size])


@pytest.mark.parametrize(("fraction", "n", "expected"), [(0.07, 100, 7), (0.1, 1000, 100), (0.001, 100, 1), (0, 9, 0)])
def test_validation_size_is_rounded_up_but_not_by_rounding_errors(fraction: float, n: int, expected: int) -> None:
    """0.07 * 100 is 7.000000000000001 in binary."""
    y = np.arange(n) % 2
    dataset = assemble(knobs(), np.zeros((n, 2)), y, np.zeros((1, 2)), y[:1])
    assert len(split(dataset, knobs(val_fraction=fraction), 0).val) == expected


def test_splits_are_stratified_and_a_seeds_own() -> None:
    dataset = small_data("digits")
    part = split(dataset, knobs(train_size=100), 0)
    share = torch.bincount(dataset.y) / len(dataset.y)
    for rows in (part.train, part.val):
        counts = torch.bincount(dataset.y[rows], minlength=10)
        assert ((counts - share * len(rows)).abs() < 2).all()
    assert split(dataset, knobs(train_size=100), 0).hash == part.hash
    assert split(dataset, knobs(train_size=100), 1).hash != part.hash
    assert split(dataset, knobs(train_size=100, batch_size=8), 0).hash == part.hash


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_label_noise_redraws_its_share_of_the_training_labels_only(share: float) -> None:
    """Drawn over all 10 classes, 1 in 10 stays what it was: n = 1,437, bound 5 standard deviations."""
    dataset = small_data("digits")
    before = dataset.y.clone()
    clean, noisy = (split(dataset, knobs(label_noise=s), 3) for s in (0.0, share))
    changed = (clean.train_y != noisy.train_y).sum().item()
    n = round(share * len(clean.train))
    assert changed <= n
    assert abs(changed - 0.9 * n) <= 5 * math.sqrt(0.09 * n)
    assert torch.equal(dataset.y, before)
    assert torch.equal(clean.val, noisy.val)
    assert torch.equal(clean.train, noisy.train)
    if share == 1:
        assert (torch.bincount(noisy.train_y, minlength=10) - n / 10).abs().max() < 5 * math.sqrt(0.09 * n)


def test_more_label_noise_keeps_the_wrong_labels_of_less() -> None:
    dataset = small_data("digits")
    clean, some, more = (split(dataset, knobs(label_noise=s), 3).train_y for s in (0, 0.2, 0.5))
    wrong = some != clean
    assert torch.equal(more[wrong], some[wrong])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"train_size": 1438},
            "data.train_size: found 1438, expected at most the 1437 examples of digits that are neither test nor "
            "validation; try data.train_size=null for all",
        ),
        ({"val_fraction": 0.9999}, "data.val_fraction: 0.9999 leaves no training examples of 1617"),
        (
            {"batch_size": 1438, "drop_last": True},
            "data.batch_size: found 1438, expected at most the 1437 training examples with data.drop_last=true, "
            "which leaves out smaller batches; try data.batch_size=1437",
        ),
    ],
)
def test_split_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(small_data("digits"), knobs(**values), 0)
    assert str(caught.value) == message


# ------------------------------------------------------------------ order


@given(n=st.integers(1, 200), batch=st.integers(1, 250), drop_last=st.booleans())
def test_batches_cover_the_epoch_once(n: int, batch: int, drop_last: bool) -> None:
    slices = batch_slices(n, batch, drop_last)
    rows = [i for s in slices for i in range(n)[s]]
    assert rows == list(range(n - n % batch if drop_last else n))
    assert all(s.stop - s.start == batch for s in slices[: None if drop_last else -1])


def test_orders_are_permutations_new_every_epoch_and_a_seeds_own() -> None:
    order, again, other = EpochOrder(50, 1, True), EpochOrder(50, 1, True), EpochOrder(50, 2, True)
    epochs = [order.next() for _ in range(4)]
    assert all(sorted(e.tolist()) == list(range(50)) for e in epochs)
    assert len({tuple(e.tolist()) for e in epochs}) == 4
    assert all(torch.equal(e, again.next()) for e in epochs)
    assert not torch.equal(epochs[0], other.next())
    still = EpochOrder(50, 1, False)
    assert torch.equal(still.next(), still.next())
    assert torch.equal(still.next(), torch.arange(50))
