"""The finer settings of a run: start, stopping rules, clipping, memory, scope; the optimisers.

A new option is one field at the end of `Options`, `optional=True` because saved workflows lack it;
the node's widget follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import Declared
from ..dno.estimate import Estimated
from ..dno.fields import Choice, Hidden, Mask, Range, Switch
from ..dno.noise import SCOPES
from ..dno.optimizers import OPTIMIZERS, Adam, Optimizer
from ..dno.parts import Part
from ..dno.stopping import Patience, StoppingRule, Target, TimeBudget
from .bridge import plain_node
from .host.sampling.needed import MEMORY
from .host.sampling.settings import Settings
from .plan import Plan
from .schema import CATEGORY, GradientSocket, OptimizerSocket, OptionsSocket

DIFFERENTIATED = {
    "all": "all",
    "first step": "first",
    "last step": "last 1",
    "last 2 steps": "last 2",
    "last 4 steps": "last 4",
}
ON_CANCEL = ("throw away", "keep the best")


@dataclass(frozen=True)
class Options(Declared):
    """Where the DNO Sampler starts and stops, the memory it takes and which noise it moves.

    The defaults are the sampler's without the node.
    """

    title = "DNO Options"
    aliases = ("settings", "stop", "patience", "time limit", "VRAM", "memory", "best of n", "seeds")

    scope: Annotated[
        str,
        Choice(
            tuple(SCOPES),
            help="Which noise is optimised: all, the initial noise only (ReNO, D-Flow, "
            "DOODL), or only the noise injected at each step.",
        ),
    ] = "all"
    gradient_clip: Annotated[
        float,
        Range(0.0, 1000.0, 0.1, help="Upper bound of each image's gradient norm; 0 for none."),
    ] = 1.0
    patience: Annotated[
        int,
        Range(
            0,
            10000,
            1,
            help="Stop after this many iterations without a better picture; 0 never stops early.",
        ),
    ] = 0
    use_target: Annotated[bool, Switch(help="Stop once target_reward is reached.")] = False
    target_reward: Annotated[
        float,
        Range(-1e6, 1e6, 0.01, help="The reward that is enough, for every image of the batch."),
    ] = 0.0
    seconds: Annotated[
        float,
        Range(0.0, 1e6, 1.0, help="Time budget in seconds; 0 for none. The best so far is kept."),
    ] = 0.0
    memory: Annotated[
        str,
        Choice(
            tuple(MEMORY),
            help="automatic: as fast as the free memory allows, step by step. recorded: nothing "
            "is computed twice. call: every step is. blocks: the network's blocks are, one at a "
            "time. least: as little memory as possible.",
        ),
    ] = "automatic"
    best_of: Annotated[
        int,
        Range(
            1,
            1024,
            1,
            help="Start from the best of so many seeds, from the sampler's on; each costs one "
            "sampling. 1 starts from the seed.",
        ),
    ] = 1
    differentiated: Annotated[
        str,
        Choice(
            tuple(DIFFERENTIATED),
            help="The steps whose network is differentiated by a climb; the sampler's own "
            "arithmetic always is. Fewer are cheaper and less exact: SDO uses the first, "
            "truncation the last ones.",
            optional=True,
        ),
    ] = "all"
    frequencies: Annotated[
        float,
        Range(
            0.01,
            1.0,
            0.01,
            help="The share of the noise's frequencies that may change, the lowest first: below 1 "
            "layout and colour move and details stay.",
            optional=True,
        ),
    ] = 1.0
    mask: Annotated[
        Tensor | None, Mask(help="Where the noise may change; the rest keeps the seed's.")
    ] = None
    plan: Annotated[
        Plan | None, Hidden(help="What a preset or a steering node set instead of the effort.")
    ] = None
    strict: Annotated[
        bool,
        Switch(
            help="Stop with an error where the gradient is known to be inexact (a step cache, a "
            "network that does not repeat itself); off, it is told and the climb goes on.",
            optional=True,
        ),
    ] = False
    on_cancel: Annotated[
        str,
        Choice(
            ON_CANCEL,
            help="What ComfyUI's Cancel does to a climb. throw away: everything stops, nothing is "
            "kept. keep the best: the climb ends, and the graph goes on with the best so far; "
            "Cancel once more to stop that too.",
            optional=True,
        ),
    ] = ON_CANCEL[0]

    def settings(
        self,
        iterations: int,
        learning_rate: float,
        optimizer: Optimizer | None = None,
        gradient: Estimated | None = None,
    ) -> Settings:
        rules: list[StoppingRule] = []
        if self.use_target:
            rules.append(Target(self.target_reward))
        if self.patience:
            rules.append(Patience(self.patience))
        if self.seconds:
            rules.append(TimeBudget(self.seconds))
        return Settings(
            iterations=iterations,
            best_of=self.best_of,
            learning_rate=learning_rate,
            clip=self.gradient_clip,
            scope=self.scope,
            optimizer=optimizer or Adam(),
            gradient=gradient,
            stopping=tuple(rules),
            memory=self.memory,
            part=Part(self.mask, self.frequencies),
            carried=DIFFERENTIATED[self.differentiated],
            strict=self.strict,
            keep_on_cancel=self.on_cancel == ON_CANCEL[1],
        )


NODES = [
    plain_node(Options, "", OptionsSocket, menu=CATEGORY),
    *(plain_node(optimizer, "Optimizer", OptimizerSocket) for optimizer in OPTIMIZERS),
    plain_node(Estimated, "Gradient", GradientSocket),
]
