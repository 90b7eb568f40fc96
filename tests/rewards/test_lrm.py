"""LRM equals the original, computed here from diffusers' whole UNet, and reads its folder."""

import json
import sys

import pytest
import torch
from diffusers import DDPMScheduler

from ComfyUI_DNO.dno.objective import Objective, TermError, Weighted
from ComfyUI_DNO.rewards import LRM, models
from ComfyUI_DNO.rewards.models.files import Stored, is_folder, read
from ComfyUI_DNO.rewards.models.lrm import LRM as Network
from ComfyUI_DNO.rewards.models.lrm import noisy

from ..support.random_weights import hollow, randomise
from ..support.tiny_judges import (
    UNET_SIZES,
    XL_SIZES,
    clip_tokenizer,
    lrm_configs,
    lrm_parts,
    lrm_state,
    text_config,
)

PROMPT = "a red fox"


@pytest.fixture(scope="module", params=[UNET_SIZES, XL_SIZES], ids=["sd15", "sdxl"])
def parts(request):
    torch.manual_seed(0)
    return {name: randomise(part.eval()) for name, part in lrm_parts(request.param).items()}


def loaded(parts) -> Network:
    stored = Stored("lrm", lrm_state(parts), lrm_configs(parts))
    network = models.build(stored)
    network.tokenizer = clip_tokenizer()
    return network


def latents(count=2, side=8):
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(3))


def tokens(filler):
    tokenizer = clip_tokenizer()
    tokenizer.pad_token = filler
    return tokenizer(
        [PROMPT, ""], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids


def original_words(parts):
    """What the UNet reads with and without the prompt, what it is told besides, and the text."""
    first = tokens("<|endoftext|>")
    if "text_encoder_2" not in parts:
        read = parts["text_encoder"](first)
        return read.last_hidden_state, {}, parts["text_projection"](read.pooler_output[:1])
    one = parts["text_encoder"](first, output_hidden_states=True)
    two = parts["text_encoder_2"](tokens("!"), output_hidden_states=True)
    states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
    times = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(2, 1)
    return states, {"text_embeds": two[0], "time_ids": times}, two[0][:1]


def original_score(parts, latent, timestep):
    """Of one noisy latent, from the whole UNet's skip connections, as the original numbers them."""
    states, added, text = original_words(parts)
    skips, middle = [], []
    unet = parts["unet"]
    hooks = [unet.conv_in.register_forward_hook(lambda *a: skips.append(a[2]))]
    hooks += [b.register_forward_hook(lambda *a: skips.extend(a[2][1])) for b in unet.down_blocks]
    hooks += [unet.mid_block.register_forward_hook(lambda *a: middle.append(a[2]))]
    unet(torch.cat([latent] * 2), timestep, states, added_cond_kwargs=added)
    for hook in hooks:
        hook.remove()
    chosen = [skips[i].mean((2, 3))[:1] for i in range(2, len(skips), 3)]
    prompted, empty = middle[0].mean((2, 3)).chunk(2)
    seen = parts["visual_projection"](torch.cat([*chosen, empty + 7.5 * (prompted - empty)], 1))
    cosine = torch.nn.functional.cosine_similarity(seen, text)
    return torch.tensor(2.6592).exp() * cosine


@pytest.mark.parametrize("timestep", [1, 501])
def test_score_and_gradient_are_the_original_s(parts, timestep):
    latent = latents().requires_grad_()
    reward = LRM(loaded(parts), PROMPT, timestep)(latent)
    (gradient,) = torch.autograd.grad(reward.sum(), latent)
    noised = noisy(latent, timestep)
    theirs = torch.cat([original_score(parts, noised[i : i + 1], timestep) for i in range(2)])
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-5)
    (wanted,) = torch.autograd.grad(theirs.sum(), latent)
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert (LRM(loaded(parts), "a car", timestep)(latent) - reward).abs().min() > 1e-3


@pytest.mark.parametrize("timestep", [1, 501, 951])
def test_noise_is_stable_diffusion_s_and_the_same_for_every_image(timestep):
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    drawn = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([timestep] * 2)
    theirs = schedule.add_noise(latents(), drawn.expand(2, -1, -1, -1), at)
    torch.testing.assert_close(noisy(latents(), timestep), theirs)


def test_gradient_is_that_of_finite_differences(parts):
    model = loaded(parts).double()
    for name, part in model.named_modules():
        if name.endswith(("text_encoder", "text_encoder_2", "text_projection")):
            part.float()  # transformers masks CLIP's words in single precision
    reward, latent = LRM(model, PROMPT), latents(1).double().requires_grad_()
    along = [torch.randn(latent.shape, dtype=torch.float64) * 1e-5 for _ in range(4)]
    (gradient,) = torch.autograd.grad(reward(latent).sum(), latent)
    for step in along:
        risen = reward(latent + step) - reward(latent - step)
        torch.testing.assert_close(risen[0], 2 * (gradient * step).sum(), rtol=1e-5, atol=0)


def test_the_published_folder_is_read(parts, tmp_path):
    folder = tmp_path / "lrm"
    for name, part in parts.items():
        if not name.endswith("projection"):
            part.save_pretrained(folder / name)
    rest = {n: part.state_dict() for n, part in parts.items() if n.endswith("projection")}
    torch.save({**rest, "logit_scale": 2.6592}, folder / "state_dict.pt")
    assert is_folder(folder)
    network = models.build(read(folder))
    network.tokenizer = clip_tokenizer()
    rewards = [LRM(one, PROMPT)(latents()) for one in (network, loaded(parts))]
    torch.testing.assert_close(*rewards)


def test_layers_are_computed_again_in_backward(parts):
    model, calls = loaded(parts), []
    layer = model.network.unet.down_blocks[1].attentions[0].transformer_blocks[0].ff
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    LRM(model, PROMPT)(latents().requires_grad_()).sum().backward()
    assert len(calls) == 2


def test_half_precision_gives_nearly_the_same(parts):
    half = LRM(loaded(parts).to(torch.bfloat16), PROMPT)(latents())
    assert half.dtype == torch.float32
    assert (half - LRM(loaded(parts), PROMPT)(latents())).abs().max() < 0.3


def test_other_latents_and_pictures_are_refused(parts):
    reward = LRM(loaded(parts), PROMPT)
    with pytest.raises(ValueError, match="latents of 4 channels"):
        reward(torch.zeros(1, 16, 8, 8))
    with pytest.raises(TermError, match="here is only a picture"):
        Objective({"LRM": Weighted(1.0, reward)}).reward(torch.rand(1, 3, 8, 8))


def test_without_diffusers_one_sentence_says_what_to_install(parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install diffusers"):
        loaded(parts)


SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    **XL_SIZES, "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
    "norm_num_groups": 32, "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": [1, 2, 10], "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


@pytest.mark.parametrize("unet", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_names_and_shapes_of_the_published_sizes_fit(unet):
    large = {"num_hidden_layers": 12, "num_attention_heads": 12}
    giant = {"num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
    texts = [text_config(768, **large), text_config(1280, **giant)]
    stages = unet.get("block_out_channels", (320, 640, 1280, 1280))
    width = 1280 if unet is SDXL else 768
    with torch.device("meta"):
        parts = lrm_parts({**unet, "block_out_channels": stages}, texts, width)
    state = {f"{p}.{n}": t for p, part in parts.items() for n, t in hollow(part).items()}
    state["logit_scale"] = torch.tensor(2.6592)
    assert state["visual_projection.weight"].shape[1] == (3520 if unet is SDXL else 4800)
    model = models.build(Stored("lrm", state, json.loads(json.dumps(lrm_configs(parts)))))
    assert isinstance(model, Network)
    kept = sum(w.numel() for w in model.network.unet.parameters())
    assert kept < 0.6 * sum(w.numel() for w in parts["unet"].parameters())
