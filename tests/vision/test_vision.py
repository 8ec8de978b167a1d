"""The digits that ship with Treadle, and the transforms that vary them."""

import numpy as np
import pytest

from treadle.vision import MNIST, RandomAffine


def test_sizes_and_ranges():
    train, test = MNIST(train=True), MNIST(train=False)
    assert (len(train), len(test)) == (8_000, 2_000)
    assert train.data.shape == (8_000, 1, 28, 28)
    assert train.data.dtype == np.float32
    assert test.targets.dtype == np.int64
    assert (train.data.min(), train.data.max()) == (0.0, 1.0)
    assert sorted(set(test.targets.tolist())) == list(range(10))


def test_train_and_test_digits_are_different_pictures():
    train = {image.tobytes() for image in MNIST(train=True).data}
    assert not any(image.tobytes() in train for image in MNIST(train=False).data)


def test_item_is_an_image_and_an_int_and_goes_through_the_transforms():
    digits = MNIST(train=False, transform=lambda image: image * 2, target_transform=str)
    image, label = digits[-1]
    np.testing.assert_array_equal(image, digits.data[1999] * 2)
    assert label == str(digits.targets[1999])
    assert type(MNIST()[0][1]) is int


def test_the_shared_digits_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        MNIST().data[0, 0, 0, 0] = 1


def test_index_out_of_range():
    with pytest.raises(IndexError, match=r"2000 test digits; got the index 2000.*\[-2000, 1999\]"):
        MNIST(train=False)[2000]


def test_iterating_ends():
    assert sum(1 for _ in MNIST(train=False)) == 2_000


def test_nothing_to_vary_changes_nothing():
    images = MNIST(train=False).data[:20]
    np.testing.assert_array_equal(RandomAffine(0, seed=1)(images), images)


def test_one_image_and_a_batch_with_channels():
    rng = np.random.default_rng(0)
    colour = rng.random((5, 3, 17, 12), np.float32)
    varied = RandomAffine(20, (0.1, 0.1), (0.8, 1.2), seed=2)(colour)
    assert varied.shape == colour.shape
    assert varied.dtype == np.float32
    # The channels of an image move together, and alike whether given alone or in a batch.
    grey = np.repeat(colour[:, :1], 3, axis=1)
    moved = RandomAffine(20, seed=3)(grey)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 2])
    np.testing.assert_array_equal(RandomAffine(20, seed=3)(grey[0]), moved[0])


def test_seed_decides():
    images = MNIST().data[:8]
    same = [RandomAffine(10, (0.1, 0.1), seed=7)(images) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], RandomAffine(10, (0.1, 0.1), seed=8)(images))


def test_values_agree_with_a_loop_over_pixels():
    """Bilinear interpolation written out, with the transform's own draws."""
    image = np.random.default_rng(0).random((1, 1, 6, 9), np.float32)
    vary = RandomAffine(30, (0.2, 0.2), (0.8, 1.3), seed=4)
    linear, shift = (part[0].astype(float) for part in vary._draw(image))
    expected = np.zeros((6, 9))

    def pixel(row: int, column: int) -> float:
        return image[0, 0, row, column] if 0 <= row < 6 and 0 <= column < 9 else 0.0

    for row in range(6):
        for column in range(9):
            x, y = linear @ (column - 4, row - 2.5) + (4, 2.5) + shift
            left, top = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - left, y - top
            expected[row, column] = (
                pixel(top, left) * (1 - fx) * (1 - fy)
                + pixel(top, left + 1) * fx * (1 - fy)
                + pixel(top + 1, left) * (1 - fx) * fy
                + pixel(top + 1, left + 1) * fx * fy
            )
    got = RandomAffine(30, (0.2, 0.2), (0.8, 1.3), seed=4)(image)
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-5)


def test_draws_stay_within_what_was_asked():
    vary = RandomAffine(10, (0.1, 0.25), (0.5, 2.0), seed=5)
    linear, shift = vary._draw(np.zeros((2000, 1, 20, 40), np.float32))
    factor = 1 / np.sqrt(np.linalg.det(linear.astype(float)))
    angle = np.rad2deg(np.arctan2(linear[:, 0, 1], linear[:, 0, 0]))
    assert 0.5 <= factor.min() < 0.51
    assert 1.99 < factor.max() <= 2.0
    assert 9.9 < np.abs(angle).max() <= 10.001
    assert np.all(np.abs(shift).max(0) <= (4.0, 5.0))  # 0.1 of 40 wide, 0.25 of 20 high
    assert np.all(np.abs(shift).max(0) > (3.9, 4.9))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [((-1,), "degrees=-1"), ((0, (0, -1)), r"\(0, -1\)"), ((0, (0, 0), (2, 1)), r"\(2, 1\)")],
)
def test_ranges_that_are_none(arguments, shown):
    with pytest.raises(ValueError, match=f"RandomAffine got .*{shown}.*expected"):
        RandomAffine(*arguments)


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"shape \(28, 28\); expected an image \(C, H, W\)"):
        RandomAffine(1)(np.zeros((28, 28), np.float32))
