import pytest
import torch

from hiddencost.prompting.border import BorderPrompt, padding
from hiddencost.prompting.maps import paste


@pytest.mark.parametrize(
    ("size", "canvas", "expected"), [(32, 224, (96, 96)), (128, 224, (48, 48)), (31, 64, (17, 16))]
)
def test_the_image_is_centred_as_published(size, canvas, expected):
    assert padding(size, canvas) == expected
    mask = BorderPrompt(canvas, size).mask()
    assert mask.sum() == canvas**2 - size**2
    low = expected[0]
    assert mask[0, low : low + size, low : low + size].sum() == 0


def test_compose_places_prompt_and_image_before_normalising():
    images = torch.full((2, 3, 2, 2), 255, dtype=torch.uint8)
    prompts = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 20.0)])
    mean, std = torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1), torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    border = BorderPrompt(canvas=4, image_size=2)
    canvas = paste(border.compose(images, {"prompt": prompts}, torch.tensor([0, 1]), border.mask(), mean, std))
    assert canvas.shape == (2, 3, 4, 4)
    assert canvas.is_contiguous(memory_format=torch.channels_last)
    assert canvas[0, :, 0, 0].tolist() == [0.0, 1.0, 0.25]  # the first border is mid-grey, 0.5
    assert canvas[1, :, 0, 0].tolist() == [1.0, 3.0, 0.5]  # the second is white
    assert canvas[1, :, 1, 2].tolist() == [1.0, 3.0, 0.5]  # as are the images
