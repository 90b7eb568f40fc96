"""A sweep against the nodes that there are: one sentence with the nearest name, before it runs."""

import json

import nodes
import pytest

from sweeps import plan as plans
from sweeps.check import Types, check
from tools.home import Failure

GRAPH = {
    "1": {"class_type": "EmptyImage",
          "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
    "2": {"class_type": "ImageScale",
          "inputs": {"image": ["1", 0], "upscale_method": "area", "width": 8, "height": 8,
                     "crop": "disabled"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("vary", "sentence"),
    [
        ({"1.widht": [1]}, "EmptyImage has no input 'widht'; did you mean 'width'?"),
        ({"2.upscale_method": ["area", "bilinaer"]}, "no 'bilinaer'; did you mean 'bilinear'"),
        ({"1.width": [16, 0]}, "EmptyImage.width is 0: the lowest is 1."),
        ({"1.width": {"from": 1, "to": 10**9}}, "the highest is"),
        ({"1.width": ["wide"]}, "EmptyImage.width is 'wide': it takes INT."),
        ({"2.image": [3]}, "ImageScale.image is 3: it takes another node's IMAGE"),
        ({"2.width": [{"node": "EmptyImage"}]}, "ImageScale.width takes INT; EmptyImage gives"),
        ({"1.width": [16], "1.height": {"from": 8, "to": 8}}, ""),
        ({"1.width": {"draw": "integer", "low": 8, "high": 16, "count": 2000}}, ""),
        (
            {"1.width": {"draw": "integer", "low": -9, "high": -1, "count": 2000}},
            "the lowest is 1.",
        ),
    ],
)
def test_what_varies_is_checked(tmp_path, vary, sentence):
    (tmp_path / "s.json").write_text(json.dumps({"workflow": GRAPH, "vary": [vary]}))
    plan = plans.read(tmp_path / "s.json")
    if not sentence:
        return check(plan, Types())
    with pytest.raises(Failure) as told:
        check(plan, Types())
    assert sentence in str(told.value)
    return None


def test_an_unknown_node_is_told_with_the_nearest(tmp_path):
    assert "SaveImage" in nodes.NODE_CLASS_MAPPINGS
    graph = json.loads(json.dumps(GRAPH).replace("SaveImage", "SafeImage"))
    (tmp_path / "s.json").write_text(json.dumps({"workflow": graph}))
    with pytest.raises(Failure, match="no node 'SafeImage' exists; did you mean 'SaveImage'"):
        check(plans.read(tmp_path / "s.json"), Types())
