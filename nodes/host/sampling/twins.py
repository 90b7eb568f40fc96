"""Differentiable twins of samplers, whose functions are welded to `torch.no_grad`.

A sampler's functions call each other by module name, so unwrapping one is not enough. A twin is the
same code run in a copy of its module's globals, in which every function that it names is a twin as
well, and `torch.no_grad` and `.detach()` do nothing. The host's own modules stay untouched. Of

    @torch.no_grad()                                    # k_diffusion/sampling.py
    def sample_ipndm(model, x, sigmas, ...):
        ...
        d = to_d(x, sigmas[i], denoised)                # a function of the module
        buffer_model.append(d.detach())

the twin is

    def sample_ipndm(model, x, sigmas, ...):            # not wrapped
        ...
        d = to_d(x, sigmas[i], denoised)                # the twin of to_d
        buffer_model.append(d.clone())                  # renamed in the code's table of names

Samplers that hold other samplers, in closures, options, attributes or partials, get twins all the
way down. What code calls in other ways (by a name, imported on the spot) keeps its gradient where
it runs, see `outside.py`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Iterable

import comfy.samplers
import torch
from torch import nn

from ....dno.draws import taped
from .substitutes import ADAPTED, TorchWithGradients, nothing

HOST_PACKAGES = ("comfy.k_diffusion", "comfy.extra_samplers")
LIBRARIES = ("torch", "numpy", "scipy", "torchsde", "comfy", "builtins", "tqdm", "math", "copy")


class Twins:
    """Makes twins, each thing's once."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {}
        self._twins: dict[int, tuple[object, object]] = {}  # the original is kept, so is its id

    def of(self, function):
        """The twin of a sampler function, a bound method or a `functools.partial` of one.

        Raises TypeError when there is no Python code to rebuild.
        """
        if isinstance(function, functools.partial):
            arguments = [self.rebuilt(each) for each in function.args]
            named = {name: self.rebuilt(each) for name, each in function.keywords.items()}
            return functools.partial(self.of(function.func), *arguments, **named)
        if isinstance(function, types.MethodType):
            return types.MethodType(self.of(function.__func__), self.rebuilt(function.__self__))
        called = inspect.getattr_static(type(function), "__call__", None)
        if isinstance(called, types.FunctionType):
            return types.MethodType(self.of(called), self.rebuilt(function))
        plain = inspect.unwrap(function) if callable(function) else function
        if not isinstance(plain, types.FunctionType):
            raise TypeError(f"{getattr(function, '__name__', function)!s} is not Python code")
        return self._function(plain)

    def rebuilt(self, value):
        """`value` with twins of all sampling code in it; `value` itself where there is none."""
        if id(value) not in self._twins:
            self._twins[id(value)] = (value, value)  # what holds itself is left as it is
            self._twins[id(value)] = (value, self._rebuilt(value))
        return self._twins[id(value)][1]

    def _rebuilt(self, value):
        if isinstance(value, types.FunctionType):
            library = _is_library(value.__module__)
            return value if library else self._function(inspect.unwrap(value))
        if isinstance(value, types.MethodType):
            owner, library = value.__self__, _is_library(value.__func__.__module__)
            return value if isinstance(owner, nn.Module) or library else self.of(value)
        if isinstance(value, functools.partial):
            return self.of(value) if self.rebuilt(value.func) is not value.func else value
        if isinstance(value, comfy.samplers.Sampler) or hasattr(value, "sampler_function"):
            return self.sampler(value)
        if type(value) in (dict, list, tuple):
            return self._container(value)
        return value

    def _container(self, value):
        if isinstance(value, dict):
            twins = {key: self.rebuilt(each) for key, each in value.items()}
            return twins if any(twins[key] is not value[key] for key in value) else value
        twins = type(value)(self.rebuilt(each) for each in value)
        return twins if any(a is not b for a, b in zip(twins, value, strict=True)) else value

    def sampler(self, sampler):
        """A copy of a host sampler whose functions, and those of samplers in it, are twins."""
        twin = copy.copy(sampler)
        self._twins[id(sampler)] = (sampler, twin)
        for name, value in vars(sampler).items():
            setattr(twin, name, self.rebuilt(value))
        if hasattr(sampler, "sampler_function"):
            twin.sampler_function = self.of(sampler.sampler_function)
            options = dict(twin.extra_options)
            if options.get("noise_sampler") is not None:
                options["noise_sampler"] = taped(options["noise_sampler"])
            twin.extra_options = options
        else:
            twin.sample = types.MethodType(self.of(type(sampler).sample), twin)
        return twin

    def _function(self, plain: types.FunctionType) -> types.FunctionType:
        twin = self._twins.get(id(plain), (plain, plain))[1]
        if twin is not plain:
            return twin
        scope, closure = self.scope(plain.__globals__), self._closure(plain.__closure__)
        defaults = plain.__defaults__ and self.rebuilt(plain.__defaults__)
        code = _without_detach(plain.__code__)
        twin = types.FunctionType(code, scope.twins, plain.__name__, defaults, closure)
        self._twins[id(plain)] = (plain, twin)
        twin.__kwdefaults__, twin.__module__ = plain.__kwdefaults__, plain.__module__
        twin.__dict__.update(plain.__dict__)
        scope.need(_names(plain.__code__))
        return twin

    def class_of(self, original: type) -> type:
        """A subclass with every method rebuilt, so that `super()` still finds the original."""
        methods = {
            name: self._function(inspect.unwrap(method))
            for name, method in vars(original).items()
            if isinstance(method, types.FunctionType)
        }
        try:
            return type(original.__name__, (original,), methods)
        except TypeError:  # a final class (an enum, a NamedTuple) holds no sampling code
            return original

    def _closure(self, cells):
        """A sampler made by a factory keeps other samplers in its closure: those get twins too."""
        return cells and tuple(self._cell(cell) for cell in cells)

    def _cell(self, cell):
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            return cell
        twin = self.rebuilt(content)
        return cell if twin is content else types.CellType(twin)

    def scope(self, original: dict) -> _Scope:
        name = original.get("__name__", "")
        if name not in self._scopes:
            self._scopes[name] = _Scope(self, original)
        return self._scopes[name]


class _Scope:
    """The copied globals of a module, in which what its functions name is twins."""

    def __init__(self, makes: Twins, original: dict):
        self._makes, self._original = makes, original
        self._name = original.get("__name__", "")
        self._done: set[str] = set()
        self.twins = dict(original)

    def need(self, names: Iterable[str]) -> None:
        """Put in twins of the globals of these names, and of what those name."""
        for name in names:
            if name in self._original and name not in self._done:
                self._done.add(name)
                self.twins[name] = self._twin(name, self._original[name])

    def _twin(self, name: str, value):
        if value is torch:
            return TorchWithGradients()
        if value is torch.no_grad or value is torch.inference_mode:
            return nothing
        if isinstance(value, types.ModuleType):
            ours = _together(value.__name__, self._name)
            return _Module(self._makes.scope(vars(value))) if ours else value
        if not _together(getattr(value, "__module__", None), self._name):
            return value
        if isinstance(value, type):
            if name in ADAPTED:
                return ADAPTED[name](value)
            return value if issubclass(value, nn.Module) else self._makes.class_of(value)
        if isinstance(value, types.FunctionType):
            plain = inspect.unwrap(value)
            ours = _together(plain.__globals__.get("__name__"), self._name)
            return self._makes.of(plain) if ours else value
        return self._makes.rebuilt(value)


class _Module:
    """A module as a twin sees it: what is asked of it is a twin too."""

    def __init__(self, scope: _Scope):
        self._scope = scope

    def __getattr__(self, name: str):
        self._scope.need((name,))
        try:
            return self._scope.twins[name]
        except KeyError:
            raise AttributeError(name) from None


def _together(module: str | None, other: str) -> bool:
    """Whether a module belongs to the sampling code of another: ComfyUI's, or the same pack's."""
    name = module or ""
    if name == other or name.startswith(HOST_PACKAGES):
        return True
    return not _is_library(name) and name.split(".")[0] == other.split(".")[0]


def _is_library(module: str | None) -> bool:
    name = module or ""
    if name.startswith(HOST_PACKAGES):
        return False
    return name.split(".")[0] in (*LIBRARIES, "", __name__.split(".")[0])


def _names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _without_detach(code: types.CodeType) -> types.CodeType:
    """The same code in which `.detach()` is `.clone()`: ipndm_v and deis cut their own history."""
    return code.replace(
        co_names=tuple("clone" if name == "detach" else name for name in code.co_names),
        co_consts=tuple(
            _without_detach(const) if isinstance(const, types.CodeType) else const
            for const in code.co_consts
        ),
    )
