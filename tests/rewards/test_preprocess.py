"""What encoders see is what the originals' preprocessing gives, up to the rounding to 8 bits.

Originals resize 8-bit pictures in two passes, each rounded to 8 bits: a pixel may differ by half a
step for the second, and by half a step times the absolute sum of its weights for the first.
"""

import pytest
import torch
import torchvision.transforms as T
from torchvision.transforms import InterpolationMode
from transformers import BitImageProcessor, CLIPImageProcessor, SiglipImageProcessor

from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.rewards.models.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
)

from ..support.examples import picture
from ..support.originals import harsh, hpsv2_module, pil

SIZES = [
    (224, 224),
    (300, 227),
    (131, 224),
    (512, 768),
    (90, 70),
    (47, 201),
    (330, 1000),
    (500, 400),
]
every_size = pytest.mark.parametrize("size", SIZES)
WORST, MEAN = 1.3 / 255, 0.3 / 255  # of a pixel in [0,1]; found: 1.09 and 0.29 / 255


def assert_equal_but_for_rounding(ours, theirs, std, worst=WORST, mean=MEAN):
    assert ours.shape == theirs.shape
    apart = ((ours - theirs) * torch.tensor(std).view(3, 1, 1)).abs()
    assert apart.amax() < worst
    assert apart.mean() < mean


@every_size
def test_crop_is_what_openai_and_open_clip_do(size):
    image = harsh(*size)
    original = T.Compose(
        [
            T.Resize(224, InterpolationMode.BICUBIC),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    theirs = original(pil(image[0]))[None]
    assert_equal_but_for_rounding(Preprocess()(image), theirs, CLIP_STD)


@every_size
def test_crop_with_floor_is_what_transformers_does_for_pickscore(size):
    image = harsh(*size)
    theirs = CLIPImageProcessor()(pil(image[0]), return_tensors="pt").pixel_values
    assert_equal_but_for_rounding(Preprocess(floor=True)(image), theirs, CLIP_STD)


@every_size
def test_pad_is_what_hpsv2_does(size):
    image = harsh(*[side + (side == 224) for side in size])  # it forgets to pad at 224 pixels
    original = hpsv2_module("transform").image_transform(224, False, resize_longest_max=True)
    theirs = original(pil(image[0]))[None]
    ours = Preprocess(fit="pad", overshoot=True)(image)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)  # it does not round
    if size == (512, 768):
        black = -torch.tensor(CLIP_MEAN) / torch.tensor(CLIP_STD)
        torch.testing.assert_close(ours[0, :, 0, 0], black)
        assert (ours * torch.tensor(CLIP_STD).view(3, 1, 1) + 0.5).amax() > 1.03  # it overshoots


@pytest.mark.parametrize("size", SIZES[:-1])  # Pillow 13 begins the last with its height
def test_stretch_is_what_siglip_does(size):
    image = harsh(*size)
    original = SiglipImageProcessor(
        size={"height": 384, "width": 384}, resample=3, image_mean=HALF, image_std=HALF
    )
    theirs = original(pil(image[0]), return_tensors="pt").pixel_values
    assert_equal_but_for_rounding(Preprocess(384, "stretch", HALF, HALF)(image), theirs, HALF)


@every_size
def test_crop_of_a_larger_picture_is_what_dinov2_does(size):
    image = harsh(*size)
    original = BitImageProcessor(
        size={"shortest_edge": 256}, crop_size=224, resample=3, image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )  # fmt: skip
    theirs = original(pil(image[0]), return_tensors="pt").pixel_values
    ours = Preprocess(224, "crop", IMAGENET_MEAN, IMAGENET_STD, short=256, floor=True)(image)
    assert_equal_but_for_rounding(ours, theirs, IMAGENET_STD)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(9, 14), (14, 9), (10, 10), (3, 40)])
def test_the_gradient_is_exact_and_every_pixel_that_is_seen_has_one(fit, size):
    image = picture(1, *size, dtype=torch.float64).requires_grad_()
    prepare = Preprocess(10, fit)
    assert torch.autograd.gradcheck(prepare, image, eps=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(prepare(image).sum(), image)
    if fit != "crop":
        assert (slope.abs().sum(dim=1) > 0).all()


def test_nothing_is_rounded():
    image = picture(1, 30, 40)
    small = 1e-4 * torch.ones_like(image)
    apart = Preprocess(16)(image + small) - Preprocess(16)(image)
    torch.testing.assert_close(apart * torch.tensor(CLIP_STD).view(3, 1, 1), small[..., :16, :16])


def test_a_picture_is_prepared_once_for_all_that_prepare_it_alike():
    image = picture(1)
    with sharing():
        assert Preprocess(16)(image) is Preprocess(16)(image)
        assert Preprocess(16)(image) is not Preprocess(16, "pad")(image)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="fit is 'zoom'; choose one of crop, pad, stretch"):
        Preprocess(16, "zoom")
