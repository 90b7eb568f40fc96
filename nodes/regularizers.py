"""A node for every regularizer of the pack, and one for none."""

from comfy_api.latest import io

from ..regularizers import REGULARIZERS as CLASSES
from .bridge import REGULARIZERS, regularizer_node
from .schema import RegularizerSocket, output, schema


class DNONoRegularizer(io.ComfyNode):
    """Leaves the noise unprotected: switches off what a sampler uses when nothing is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNONoRegularizer",
            display_name="No Regularizer",
            category=REGULARIZERS,
            description=cls.__doc__,
            search_aliases=["off", "none", "unprotected", "disable"],
            inputs=[],
            outputs=[output(RegularizerSocket, "regularizer")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput({})


NODES = [*(regularizer_node(regularizer) for regularizer in CLASSES), DNONoRegularizer]
