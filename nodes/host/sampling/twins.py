"""Differentiable twins of the host's sampler functions, which are welded to `torch.no_grad`.

k-diffusion's functions call each other by module name, so unwrapping one is not enough. A twin is
the same code run in a copy of its module's globals, in which every function is a twin as well,
every Gaussian draw goes over the tape, and `.detach()` and `torch.no_grad` do nothing. The host's
own modules stay untouched.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from contextlib import nullcontext

import torch

from ....dno.noise import Tape

HOST_PACKAGES = ("comfy.k_diffusion", "comfy.extra_samplers")


class Twins:
    """Makes twins whose draws go over the tape that they follow, another one at every sampling."""

    tape: Tape
    shape: torch.Size

    def __init__(self) -> None:
        self._modules: dict[str, dict] = {}
        self._torch = _TapedTorch(self)

    def of(self, function):
        """The twin of a sampler function, a bound method or a `functools.partial` of one.

        Raises TypeError when there is no Python code to rebuild.
        """
        if isinstance(function, functools.partial):
            return functools.partial(self.of(function.func), *function.args, **function.keywords)
        if isinstance(function, types.MethodType):
            return types.MethodType(self.of(function.__func__), function.__self__)
        plain = inspect.unwrap(function)
        if not isinstance(plain, types.FunctionType):
            raise TypeError(f"{function!r} is not a Python function")
        return self._function(plain, self._scope(plain.__globals__))

    def follow(self, tape: Tape, shape: torch.Size) -> None:
        """Draw over `tape` from now on; only draws of the latent's `shape` are taped."""
        self.tape, self.shape = tape, shape

    def draw(self, host):
        """One Gaussian draw over the tape."""
        return self.tape.draw(host)

    def sampler(self, noise_sampler):
        """A `noise_sampler(sigma, sigma_next)` whose draws go over the tape."""
        return lambda sigma, sigma_next: self.draw(lambda: noise_sampler(sigma, sigma_next))

    def _function(self, plain: types.FunctionType, scope: dict) -> types.FunctionType:
        twin = types.FunctionType(
            _without_detach(plain.__code__),
            scope,
            plain.__name__,
            plain.__defaults__,
            self._closure(plain.__closure__),
        )
        twin.__kwdefaults__ = plain.__kwdefaults__
        twin.__module__ = plain.__module__
        return twin

    def _closure(self, cells):
        """A sampler made by a factory keeps other samplers in its closure: those get twins too."""
        return cells and tuple(
            types.CellType(self.of(content)) if self._is_ours(content := _content(cell)) else cell
            for cell in cells
        )

    def _is_ours(self, value) -> bool:
        module = getattr(value, "__module__", None) or ""
        return isinstance(value, types.FunctionType) and module.startswith(HOST_PACKAGES)

    def _scope(self, original: dict) -> dict:
        """The copied globals of a module, each function and class in it replaced by its twin."""
        name = original.get("__name__", "")
        if name in self._modules:
            return self._modules[name]
        scope = self._modules[name] = dict(original)
        for key, value in original.items():
            scope[key] = self._twin_of_global(value, name, scope)
        for key, adapt in (
            ("BrownianTreeNoiseSampler", self._taped),
            ("PIDStepSizeController", _with_fixed_steps),
        ):
            if key in scope:
                scope[key] = adapt(original[key])
        return scope

    def _twin_of_global(self, value, module: str, scope: dict):
        if value is torch:
            return self._torch
        if isinstance(value, types.ModuleType) and value.__name__.startswith(HOST_PACKAGES):
            return types.SimpleNamespace(**self._scope(vars(value)))
        home = getattr(value, "__module__", None)
        if home != module and not str(home).startswith(HOST_PACKAGES):
            return value
        if home != module and home in sys.modules:
            scope = self._scope(vars(sys.modules[home]))
        if isinstance(value, types.FunctionType):
            plain = inspect.unwrap(value)
            return self._function(plain, scope) if plain.__globals__["__name__"] == home else value
        return self._class(value, scope) if isinstance(value, type) else value

    def _class(self, original: type, scope: dict) -> type:
        """A subclass with every method rebuilt, so that `super()` still finds the original."""
        methods = {
            name: self._function(inspect.unwrap(method), scope)
            for name, method in vars(original).items()
            if isinstance(method, types.FunctionType)
        }
        try:
            return type(original.__name__, (original,), methods)
        except TypeError:  # a final class (an enum, a NamedTuple) holds no sampling code
            return original

    def _taped(self, original: type) -> type:
        twins = self

        class TapedNoiseSampler(original):
            def __call__(self, sigma, sigma_next):
                return twins.draw(lambda: original.__call__(self, sigma, sigma_next))

        return TapedNoiseSampler


class _TapedTorch:
    """`torch` as a sampler sees it: draws of the latent's shape are taped, gradients stay on."""

    def __init__(self, twins: Twins):
        self._twins = twins
        self.no_grad = nullcontext

    def __getattr__(self, name):
        return getattr(torch, name)

    def inference_mode(self, mode: bool = True):
        return nullcontext() if mode else torch.inference_mode(False)

    def randn_like(self, like, **options):
        if like.shape != self._twins.shape:
            return torch.randn_like(like, **options)
        return self._twins.draw(lambda: torch.randn_like(like, **options))

    def randn(self, *size, **options):
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        if torch.Size(shape) != self._twins.shape:
            return torch.randn(*size, **options)
        return self._twins.draw(lambda: torch.randn(*size, **options))


def _with_fixed_steps(original: type) -> type:
    """dpm_adaptive's step sizes are constants of the gradient: they only steer the error."""

    class FixedStepSizeController(original):
        def propose_step(self, error):
            return super().propose_step(error.detach())

    return FixedStepSizeController


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return None


def _without_detach(code: types.CodeType) -> types.CodeType:
    """The same code in which `.detach()` is `.clone()`: ipndm_v and deis cut their own history."""
    return code.replace(
        co_names=tuple("clone" if name == "detach" else name for name in code.co_names),
        co_consts=tuple(
            _without_detach(const) if isinstance(const, types.CodeType) else const
            for const in code.co_consts
        ),
    )
