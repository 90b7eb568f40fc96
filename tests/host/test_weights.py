"""Weights that are cast or streamed for one product are fetched again, exact and not kept."""

from __future__ import annotations

import comfy.model_management as management
import comfy.ops
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ComfyUI_DNO.nodes.host.judges.clip_vision import as_encoder
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.sampling import levels
from ComfyUI_DNO.nodes.host.sampling.plan import Level
from ComfyUI_DNO.nodes.host.sampling.weights import Weights

from ..support import families, tiny
from ..support.examples import picture
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, difference, sample
from ..support.tiny_encoders import host_vision

FP8 = torch.float8_e4m3fn
SCALED = getattr(comfy.ops, "scaled_fp8_ops", None)  # of older hosts
CASTING = [Level.RECORDED, Level.CALL, Level.KEPT, Level.SPLIT]


class OneBuffer:
    """Casts as newer ComfyUI does: each layer's weights over the memory of the one before."""

    def __init__(self):
        self.memory = np.zeros(2**20, np.uint8)

    def __call__(self, layer, input=None, *others, offloadable=False, **named):
        given, at = [], 0
        for weight in (layer.weight, layer.bias):
            if weight is None:
                given.append(None)
                continue
            size = weight.numel() * 4
            part = torch.from_numpy(self.memory[at : at + size].view(np.float32))  # a new storage
            given.append(part.view(weight.shape).copy_(weight.detach()))
            at += size
        return (*given, None) if offloadable else tuple(given)


def gradient(model, level: Level):
    probe = Probe(level=level)
    sample(families.guider(FAMILIES["Flux"], model), probe, FAMILIES["Flux"].latent, steps=2)
    return probe.gradient


@pytest.mark.parametrize("level", CASTING)
def test_one_buffer_for_all_weights_does_not_spoil_the_gradient(level, monkeypatch):
    """ComfyUI's dynamic VRAM, on the CPU: neither versions nor storages tell of the overwrite."""
    model = build(FAMILIES["Flux"], torch.float16, torch.float32)
    expected = gradient(model, level)
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", OneBuffer())
    assert difference(gradient(model, level), expected) < 1e-6
    monkeypatch.setattr(Weights, "again", lambda self, tensor: None)
    assert difference(gradient(model, level), expected) > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, FP8])
def test_cast_weights_are_not_kept(dtype, monkeypatch):
    """Of a recorded evaluation, no saved matrix has the shape of a layer's weight."""
    model, fetched, kept = build(FAMILIES["Flux"], dtype, torch.float32), set(), set()
    plain = Weights.again

    def again(self, tensor: Tensor):
        fetch = plain(self, tensor)
        (kept if fetch is None else fetched).add(tuple(sorted(tensor.shape)))
        return fetch

    monkeypatch.setattr(Weights, "again", again)
    gradient(model, Level.RECORDED)
    layers = model.model.diffusion_model.modules()
    weights = {tuple(sorted(m.weight.shape)) for m in layers if isinstance(m, nn.Linear)}
    assert len(fetched & weights) > 2 and not kept & weights


class Scaled(nn.Module):
    """Two scaled fp8 layers, the first of which multiplies its weight by its scale."""

    def __init__(self):
        super().__init__()
        linear = SCALED().Linear
        self.layers = nn.ModuleList([linear(8, 6), linear(6, 40)])
        generator = torch.Generator().manual_seed(0)
        for layer in self.layers:
            weight = torch.randn(layer.weight.shape, generator=generator).to(FP8)
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layer.bias = nn.Parameter(torch.zeros(len(weight)), requires_grad=False)
            layer.scale_weight = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x):
        return self.layers[1](self.layers[0](x).sin()).cos()


@pytest.mark.skipif(SCALED is None, reason="newer: quantised layers")
def test_scaled_layers_keep_neither_their_weight_nor_its_product():
    network, weights, sizes = Scaled(), Weights(), []
    x = torch.randn(5, 30, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(network(x).sum(), x)

    def pack(tensor):
        again = weights.again(tensor)
        sizes.append(tensor.numel() if again is None else 0)
        return again or tensor

    def unpack(saved):
        return saved if isinstance(saved, Tensor) else saved()

    cast = comfy.ops.cast_bias_weight
    with weights.watched([network]), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        out = network(x)
    assert comfy.ops.cast_bias_weight is cast
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], expected)
    assert sizes.count(0) == 2 and min(sizes[i] for i in range(len(sizes)) if sizes[i]) > 48


class Packed(nn.Module):
    """A layer of a pack's own, as GGUF's: its class unpacks the weight for each product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(16, dtype=torch.uint8), requires_grad=False)
        self.bias = None

    def cast_bias_weight(self, input=None, dtype=None, device=None):
        return self.weight.to(dtype or input.dtype).view(4, 4) / 7, None

    def forward(self, x):
        weight, bias = self.cast_bias_weight(x)
        return nn.functional.linear(x, weight, bias).sin()


def test_layers_that_unpack_their_weights_by_a_method_of_their_own():
    layer, weights, kept = Packed(), Weights(), []
    x = torch.ones(3, 4, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)

    def pack(tensor):
        again = weights.again(tensor)
        kept.extend([] if again else [tensor.shape])
        return again or tensor

    def unpack(saved):
        return saved if isinstance(saved, Tensor) else saved()

    with weights.watched([layer]), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        out = layer(x).sum()
    assert torch.equal(torch.autograd.grad(out, x)[0], expected)
    assert (4, 4) not in kept and "cast_bias_weight" not in vars(layer)


class Stream:
    """A stream's clock, and what it knows of the other streams' clocks."""

    def __init__(self, name: str):
        self.name, self.now, self.seen = name, 0, {}

    def tick(self) -> None:
        self.now += 1
        self.seen[self.name] = self.now

    def wait_stream(self, other: Stream) -> None:
        for name, now in {**other.seen, other.name: other.now}.items():
            self.seen[name] = max(self.seen.get(name, 0), now)


class Streamed(nn.Module):
    """A layer whose weight is fetched by ComfyUI's own streams, with clocks for their events.

    A fetch takes the memory last freed on its stream, and must know of that memory's last use.
    """

    def __init__(self, device: torch.device, main: Stream):
        super().__init__()
        self.device, self.main = device, main
        self.freed: dict[str, list[int]] = {"first": [], "second": []}
        self.fetches = self.unsafe = 0

    def forward(self, x):
        stream = management.get_offload_stream(self.device)
        free, self.fetches = self.freed[stream.name], self.fetches + 1
        if free:
            self.unsafe += stream.seen.get("main", 0) < free.pop()
        stream.tick()
        management.sync_stream(self.device, stream)
        self.main.tick()
        stream.wait_stream(self.main)  # as ComfyUI's layers end
        if torch.is_grad_enabled():
            return Read.apply(x, self, free)
        free.append(self.main.now)
        return x * 1


class Read(torch.autograd.Function):
    """A product whose backward reads the weight once more; then its memory is free."""

    @staticmethod
    def forward(context, x, layer, free):
        context.layer, context.free = layer, free
        return x * 1

    @staticmethod
    def backward(context, gradient):
        context.layer.main.tick()
        context.free.append(context.layer.main.now)
        return gradient * 1, None, None


class Stack(nn.Module):
    """Layers one after the other, two in a block."""

    def __init__(self, layer: Streamed):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(layer, layer) for _ in range(4))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("level", [Level.RECORDED, Level.CALL, Level.NESTED])
@pytest.mark.parametrize("waits", [True, False])
def test_a_streamed_weight_is_not_overwritten_before_backward_has_read_it(
    waits, level, monkeypatch
):
    """In evaluations that come first, and in those that backward computes again."""
    device, main = torch.device("cpu"), Stream("main")
    streams = [Stream("first"), Stream("second")]
    monkeypatch.setattr(management, "STREAMS", {device: streams})
    monkeypatch.setattr(management, "stream_counters", {device: 0})
    monkeypatch.setattr(management, "NUM_STREAMS", 2)
    monkeypatch.setattr(management, "current_stream", lambda device: main)
    if not waits:
        monkeypatch.setattr(levels, "offload_streams_wait", lambda device: None)
    layer = Streamed(device, main)
    network = Stack(layer)
    with levels.Levels([network]) as chosen:
        chosen.forced = level
        for _ in range(2):
            chosen.restart()
            x = leaf = torch.ones(2, requires_grad=True)
            for _ in range(3):
                (x,) = chosen(lambda x: (network(x),), x, steady=False)
            torch.autograd.grad(x.sum(), leaf)
    assert layer.fetches >= 6 * 8
    assert (layer.unsafe == 0) is waits


@pytest.mark.parametrize("what", ["VAE", "CLIP vision"])
def test_streams_wait_before_a_picture_is_decoded_or_seen(what, monkeypatch):
    main, stream = Stream("main"), Stream("offload")
    vae, encoder = tiny.vae(), as_encoder(host_vision("clip"))
    monkeypatch.setattr(management, "STREAMS", {torch.device("cpu"): [stream]})
    monkeypatch.setattr(management, "current_stream", lambda device: main)
    main.tick()
    with torch.no_grad():
        if what == "VAE":
            Decoder(vae, lambda latent: latent)(torch.zeros(1, 4, 4, 4))
        else:
            encoder.image_embed(picture(1))
    assert stream.seen == {"main": 1}
