"""Corruptions: published parameters and formulas, seeded image by image, each severity worse than the one before."""

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image

from hiddencost.datasets.corruptions import CORRUPTIONS, SEVERITIES, _disk, brightness, corrupt


@pytest.fixture(scope="module")
def images():
    """Images with structure, dark and bright, of CIFAR-10's size, and two of a larger one."""
    random = np.random.default_rng(0)

    def smooth(number, side):
        coarse = random.integers(20, 200, (number, 4, 4, 3), np.uint8)
        enlarged = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse]
        return np.stack([np.asarray(one) for one in enlarged]).transpose(0, 3, 1, 2)

    return {"small": smooth(6, 32), "large": smooth(2, 96)}


@pytest.mark.parametrize("side", ["small", "large"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_damages_more_than_the_one_before(name, side, images):
    clean = images[side]
    before = clean.copy()
    assert np.array_equal(corrupt(clean, name, 0), clean)
    errors = [np.square(corrupt(clean, name, one).astype(float) - clean).mean() for one in SEVERITIES]
    assert errors[0] > 0
    assert errors == sorted(errors)
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_is_the_same_however_the_images_are_cut_into_parts(name, images):
    whole = corrupt(images["small"], name, 3)
    parts = [corrupt(images["small"][start : start + 4], name, 3, start) for start in (0, 4)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.uint8


def test_noise_differs_from_image_to_image_and_from_severity_to_severity():
    grey = np.full((2, 3, 32, 32), 128, np.uint8)
    for name, scale in (("gaussian_noise", 0.04), ("shot_noise", np.sqrt(128 / 255 / 500))):
        noise = corrupt(grey, name, 1).astype(float) - 128
        assert noise.std() == pytest.approx(255 * scale, rel=0.05)
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
        other = corrupt(grey, name, 2).astype(float) - 128
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.1


def test_light_is_changed_by_hand():
    image = np.zeros((1, 3, 2, 2), np.uint8)
    image[0, :, 0, 0] = 100, 50, 0
    image[0, :, 0, 1] = 250, 125, 25
    bright = corrupt(image, "brightness", 5)[0]  # 0.3 of 255 more: hue and saturation as they were
    assert bright[:, 0, 0].tolist() == [176, 88, 0]
    assert bright[:, 0, 1].tolist() == [255, 127, 25]
    assert bright[:, 1, 1].tolist() == [76, 76, 76]
    flat = corrupt(image, "contrast", 2)[0]  # half way to the channels' means, 87.5, 43.75 and 6.25
    assert flat[:, 0, 1].tolist() == [168, 84, 15]
    assert flat[:, 1, 1].tolist() == [43, 21, 3]


def test_brightness_is_the_published_codes_way_over_hsv(images):
    for image in images["small"] / 255:
        hsv = rgb_to_hsv(image.transpose(1, 2, 0))
        hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
        assert np.allclose(brightness(image.transpose(1, 2, 0), 0.2, None), hsv_to_rgb(hsv))


def test_a_defocused_point_is_the_disk():
    # opencv: cv2.GaussianBlur of the disk of radius 1.5, 9 equal values, ksize (3, 3), sigma 0.1, leaves it as it is
    assert np.allclose(_disk(1.5, 0.1), 1 / 9)
    assert np.allclose(_disk(0.3, 0.4), np.outer(*[[0.0404, 0.9192, 0.0404]] * 2), atol=1e-4)
    assert _disk(10, 0.5).shape == (21, 21)
    point = np.zeros((1, 3, 9, 9), np.uint8)
    point[..., 4, 4] = 180
    assert corrupt(point, "defocus_blur", 5)[0, 0, 3:6, 3:6].tolist() == [[20] * 3] * 3
