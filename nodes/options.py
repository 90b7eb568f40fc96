"""The finer settings of a run: start, stopping rules, clipping, memory, scope; the optimisers."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..dno.estimate import Estimated
from ..dno.noise import SCOPES
from ..dno.optimizers import OPTIMIZERS, Adam, Optimizer
from ..dno.stopping import Patience, StoppingRule, Target, TimeBudget
from .bridge import plain_node
from .host.sampling.aligner import Settings
from .host.sampling.levels import MEMORY
from .schema import CATEGORY, GradientSocket, OptimizerSocket, OptionsSocket, schema


@dataclass(frozen=True)
class Options:
    """What the DNO Options node sets; the defaults are the sampler's without it.

    patience: iterations without a better picture, 0 for no limit. target_reward counts if
    use_target is on. seconds: time budget, 0 for no limit. best_of: seeds to choose the start from.
    """

    scope: str = "all"
    gradient_clip: float = 1.0
    patience: int = 0
    use_target: bool = False
    target_reward: float = 0.0
    seconds: float = 0.0
    memory: str = "automatic"
    best_of: int = 1

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
        )


class DNOOptions(io.ComfyNode):
    """Where the DNO Sampler starts and stops, the memory it takes and which noise it moves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOOptions",
            display_name="DNO Options",
            category=CATEGORY,
            description=cls.__doc__,
            inputs=[
                io.Combo.Input(
                    "scope",
                    options=list(SCOPES),
                    default="all",
                    tooltip=(
                        "Which noise is optimised: all, the initial noise only (ReNO, D-Flow, "
                        "DOODL), or only the noise injected at each step."
                    ),
                ),
                io.Float.Input(
                    "gradient_clip",
                    default=1.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="Upper bound of each image's gradient norm; 0 for none.",
                ),
                io.Int.Input(
                    "patience",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip=(
                        "Stop after this many iterations without a better picture; 0 never "
                        "stops early."
                    ),
                ),
                io.Boolean.Input(
                    "use_target", default=False, tooltip="Stop once target_reward is reached."
                ),
                io.Float.Input(
                    "target_reward",
                    default=0.0,
                    min=-1e6,
                    max=1e6,
                    step=0.01,
                    tooltip="The reward that is enough, for every image of the batch.",
                ),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=1e6,
                    step=1.0,
                    tooltip="Time budget in seconds; 0 for none. The best so far is kept.",
                ),
                io.Combo.Input(
                    "memory",
                    options=list(MEMORY),
                    default="automatic",
                    tooltip=(
                        "automatic: as fast as the free memory allows, step by step. recorded: "
                        "nothing is computed twice. call: every step is. blocks: the network's "
                        "blocks are, one at a time. least: as little memory as possible."
                    ),
                ),
                io.Int.Input(
                    "best_of",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip=(
                        "Start from the best of so many seeds, from the sampler's on; each costs "
                        "one sampling. 1 starts from the seed."
                    ),
                ),
            ],
            outputs=[OptionsSocket.Output(display_name="options")],
        )

    @classmethod
    def execute(cls, **values: object) -> io.NodeOutput:
        return io.NodeOutput(Options(**values))


NODES = [
    DNOOptions,
    *(plain_node(optimizer, "Optimizer", OptimizerSocket) for optimizer in OPTIMIZERS),
    plain_node(Estimated, "Gradient", GradientSocket),
]
