"""One guider's sampling as a pure function of its noise."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import comfy.model_management as management
import torch
from torch import Tensor, nn

from ....dno import draws
from ....dno.autograd.scaled import scaled
from ....dno.noise import Noise, Tape
from .carried import carrying
from .evaluations import Evaluations
from .guards import differentiable_options
from .levels import Levels
from .moment import block_moment
from .outside import inside
from .state import Generators, HostState
from .watched import Seen, Twin
from .weights import Weights

CACHE = (
    "Something in this graph keeps tensors from one call of the network to the next: a step cache "
    "(TeaCache, EasyCache, DeepCache ...) or a guidance with a memory. The gradient is exact for "
    "what each call computed, and does not see what they kept: take it out for an exact one."
)
DIFFERS = (
    "The network does not repeat itself: computed again for the gradient, it gave another result "
    "(off by {:.1g}). A step cache, random numbers or compiled parts of another pack are the usual "
    "reason: take them out for an exact gradient."
)
RUNNING = (
    "{} of another pack keeps an iterator, which cannot be set back: from the same noise it may "
    "give another picture. Take it out, or let it look at sigma instead."
)
NO_GRADIENT = (
    "This sampler or model cannot be differentiated: no gradient reached the latent. "
    "Choose another sampler, and a model without compiled, TensorRT or Nunchaku parts."
)


@dataclass(frozen=True)
class Origin:
    """What a sampler's own draws come from: the host's seed, and the generators as they stood."""

    seed: int | None
    generators: Generators


class Sampling:
    """One guider's sampling as a pure function of its noise: same noise, same latent, bitwise.

    tensors: sigmas, noise, latent image and denoise mask, ordinary ones.
    weights: of the climb that this is a part of: see Levels.
    evaluations: of the network so far, forward and backward.
    """

    def __init__(
        self, sampler, model_wrap, extra_args, tensors, resident=frozenset(), weights=None
    ):
        self.sigmas, self.noise, self.latent_image, self.denoise_mask = tensors
        self.steps = len(self.sigmas) - 1
        self._model, self._sampler = model_wrap, Twin(sampler)
        state = _state(model_wrap, extra_args, self._sampler.twin, self.noise.device)
        self._state = state
        self.origin = Origin(extra_args.get("seed"), state.generators)
        self.levels = self._levels(model_wrap, resident, weights)
        self.evaluations = Evaluations()
        options = differentiable_options(extra_args.get("model_options", {}), self._calc_cond_batch)
        self._extra_args = {**extra_args, "model_options": options}
        self.warnings: list[str] = []
        self.strict, self._warned = False, set()
        self._kept: dict[int, tuple[float, ...]] = {}
        # ddim draws the noise of the kept region by itself, as many images as there are.
        kept = getattr(sampler, "inpaint_options", {}).get("random", False)
        self.by_image = not (kept and self.denoise_mask is not None)
        self._carried = carrying("all", self.sigmas)

    def from_origin(self, origin: Origin) -> Sampling:
        """The same sampling whose own draws come from elsewhere."""
        other = copy.copy(self)
        other.origin = origin
        return other

    def render(
        self,
        noise: Noise,
        *,
        tape: Tape | None = None,
        seen: Seen | None = None,
        callback: Callable | None = None,
    ) -> Tensor:
        """Noise -> latent in the model's space; bitwise what the host's sampler gives.

        The noise may hold a multiple of the job's batch, as the estimated gradients ask for.

        tape:     answers the sampler's draws; by default what the noise holds, or gains.
        seen:     is given each denoised prediction (B,C,...), CFG and all, and its sigma (B,),
            before the sampler draws what it adds.
        callback: the host's (step, denoised, x, steps).
        """
        repeats = len(noise.initial) // len(self.noise)
        if repeats > 1 and not self.by_image:
            return torch.cat([self.render(part) for part in noise.split(len(self.noise))])
        self._restart()
        options = dict(self._extra_args["model_options"])
        extra_args = {**self._extra_args, "model_options": options, "seed": self.origin.seed}
        with draws.over(tape or noise.tape()):
            latent = self._sampler.watched(noise.initial, self.warn, seen).sample(
                self._model,
                self.sigmas.clone(),
                extra_args,
                callback,
                noise.initial,
                *(_repeated(tensor, repeats) for tensor in (self.latent_image, self.denoise_mask)),
                True,
            )
        if torch.is_grad_enabled():
            self._notice_caches(len(noise.initial))
            if noise.leaves() and not latent.requires_grad:
                raise ValueError(NO_GRADIENT)
        return latent

    def _restart(self) -> None:
        """All that is kept between evaluations is as it was when the run began."""
        self.levels.restart()
        self._state.restart(self.origin.generators)
        for name in self._state.running:
            self.warn(RUNNING, name)

    def plan(
        self,
        watch: Callable[[bool], None],
        check: Callable[[], None],
        memory: str,
        reserved: int,
    ) -> None:
        """Report evaluations to `watch`, after `check`, which ends all; memory: see needed.MEMORY.

        reserved: bytes that decoding and scoring need, which are not free.
        """
        self.evaluations.check = check

        def watched(recomputed: bool) -> None:
            check()
            watch(recomputed)

        free = management.get_free_memory(self.noise.device)
        self.levels.begin(memory, free, reserved, self.steps, watched)

    def carry(self, which: str, strict: bool = False) -> None:
        """Which evaluations of the network carry the gradient: "all", "first", "last N" steps.

        strict: whether one that is known to be inexact is refused.
        """
        self.strict = strict
        self._carried = carrying(which, self.sigmas)

    @property
    def process_out(self) -> Callable[[Tensor], Tensor]:
        """From the model's latent to that of a LATENT; it does not keep the model alive."""
        return self._model.model_patcher.get_model_object("latent_format").process_out

    def memory_required(self, shape: list[int]) -> float:
        """Bytes that the host plans for one evaluation of a batch of this shape."""
        return self._model.inner_model.memory_required(shape)

    def warn(self, words: str, *values: object) -> None:
        """Say it in the log and on the node, once, whatever the values. Strict: raise it."""
        if self.strict:
            raise ValueError(words.format(*values))
        if words not in self._warned:
            self._warned.add(words)
            self.warnings.append(words.format(*values))
            logging.warning("DNO: %s", self.warnings[-1])

    def _notice_caches(self, batch: int) -> None:
        """What calls keep for later ones and differs with the noise has no gradient."""
        kept = self._state.fingerprint()
        before = self._kept.setdefault(batch, kept)
        if len(before) == len(kept) and before != kept:
            self.warn(CACHE)

    def _calc_cond_batch(self, executor, model, conds, x_in, timestep, model_options):
        """Every evaluation of the network, ControlNet included, at its level of memory."""

        def evaluate(x: Tensor, conds=conds) -> tuple[Tensor, ...]:
            outputs = tuple(executor(model, conds, x, timestep, model_options))
            self.evaluations.count(x, outputs)
            return outputs

        # Copies: what the sampler writes into, before or after, is nothing that a call has saved.
        given = x_in.clone()
        carried = given.requires_grad and self._carried(timestep)

        def alone(index: int):
            only = [cond if index == other else None for other, cond in enumerate(conds)]
            return lambda x: (evaluate(x, only)[index],)

        prompts = sum(cond is not None for cond in conds)
        split = [alone(index) for index in range(len(conds))] if prompts > 1 else []
        hooked = any(entry.get("hooks") for entries in conds for entry in entries or ())
        with inside(), torch.set_grad_enabled(carried and torch.is_grad_enabled()):
            levels = partial(self.levels, evaluate, alone=split, steady=not hooked)
            if self.levels.recomputer.precision == torch.float16:
                levels = scaled(levels, apart=False)  # patches may mix the images of a batch
            outputs = levels(given)
        return [output.clone() for output in outputs]

    def _levels(self, model_wrap, resident: frozenset[int], weights: Weights | None) -> Levels:
        inner = model_wrap.inner_model
        others = (getattr(patcher, "model", None) for patcher in model_wrap.loaded_models)
        networks = [inner.diffusion_model, *(m for m in others if isinstance(m, nn.Module))]
        return Levels(
            networks,
            resident,
            remember=self._state.capture,
            moment=block_moment(getattr(inner, "current_patcher", None), self.noise.device),
            differs=self._tell_difference,
            precision=getattr(inner, "manual_cast_dtype", None) or inner.get_dtype(),
            weights=weights,
        )

    def _tell_difference(self, off: float) -> None:
        self.warn(DIFFERS, off)


def _state(model_wrap, extra_args: dict, sampler, device: torch.device) -> HostState:
    own = {k: v for k, v in vars(model_wrap).items() if k not in ("conds", "original_conds")}
    hooks = [
        entry["hooks"]
        for entries in getattr(model_wrap, "conds", {}).values()
        for entry in entries or ()
        if entry.get("hooks") is not None
    ]
    roots = [extra_args.get("model_options", {}), sampler, *own.values(), *hooks]
    patchers = [model_wrap.model_patcher]
    networks = [getattr(model_wrap.inner_model, "diffusion_model", None)]
    return HostState(roots, [n for n in networks if n is not None], patchers, device)


def _repeated(tensor: Tensor | None, repeats: int) -> Tensor | None:
    return tensor if tensor is None or repeats == 1 else torch.cat([tensor] * repeats)
