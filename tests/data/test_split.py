import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.data.split import stratified_split, stratified_subset
from tinygrow.errors import TinygrowError

counts_of_classes = st.lists(st.integers(2, 40), min_size=1, max_size=12)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**40)


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def names(counts: list[int]) -> list[str]:
    return [f"class{number}" for number in range(len(counts))]


@given(counts_of_classes, fractions, seeds)
def test_a_split_parts_all_images_and_leaves_each_class_on_both_sides(counts, fraction, seed):
    labels = labels_of(counts)
    rest, part = stratified_split(labels, names(counts), fraction, seed=seed, purpose="test")
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert (np.diff(rest) > 0).all() and (np.diff(part) > 0).all()
    assert set(labels[rest]) == set(labels[part]) == set(range(len(counts)))
    wanted = int(fraction * len(labels) + 0.5)
    assert len(part) == np.clip(wanted, len(counts), len(labels) - len(counts))


@given(st.integers(1, 8), st.integers(10, 30), st.sampled_from([0.1, 0.2, 0.5]), seeds)
def test_a_split_keeps_proportions(classes, tens, fraction, seed):
    counts = [10 * tens * (1 + number) for number in range(classes)]
    labels = labels_of(counts)
    _, part = stratified_split(labels, names(counts), fraction, seed=seed, purpose="validation")
    assert np.bincount(labels[part]).tolist() == [round(count * fraction) for count in counts]


@given(counts_of_classes, st.integers(1, 600), st.sampled_from([1, 2]), seeds)
def test_a_subset_has_the_size_asked_for_and_the_proportions(counts, size, per_class, seed):
    labels = labels_of(counts)
    arguments = {"seed": seed, "purpose": "max_train_images", "per_class": per_class}
    if size < min(per_class * len(counts), len(labels)):
        with pytest.raises(TinygrowError, match=f"max_train_images is {size}, too few"):
            stratified_subset(labels, names(counts), size, **arguments)
        return
    chosen = stratified_subset(labels, names(counts), size, **arguments)
    assert len(set(chosen)) == len(chosen) == min(size, len(labels))
    got = np.bincount(labels[chosen], minlength=len(counts))
    assert (got >= per_class).all()
    exact = np.array(counts) * len(chosen) / len(labels)
    if (exact >= per_class).all():
        assert (abs(got - exact) < 1).all()


def test_the_choice_is_the_same_everywhere():
    """Remembered on purpose: prepared files must not change with a version or a platform."""
    labels = np.arange(24) % 3
    _, part = stratified_split(labels, "abc", 0.25, seed=7, purpose="test")
    assert part.tolist() == [4, 6, 10, 20, 21, 23]


def test_seeds_and_purposes_choose_differently():
    labels = np.zeros(200, np.int64)
    choices = [
        tuple(stratified_split(labels, ["a"], 0.5, seed=seed, purpose=purpose)[1])
        for seed in (0, 1)
        for purpose in ("test", "validation")
    ]
    assert len(set(choices)) == 4


def test_a_single_image_cannot_be_split():
    with pytest.raises(TinygrowError, match=r"class 'rare' has 1 image left.*for validation"):
        stratified_split(
            np.array([0, 0, 1, 0]), ["common", "rare"], 0.5, seed=0, purpose="validation"
        )


def test_a_class_without_images_is_passed_over():
    labels = np.array([0, 2, 0, 2, 2])
    chosen = stratified_subset(labels, "abc", 3, seed=0, purpose="max_test_images")
    assert set(labels[chosen]) == {0, 2}
