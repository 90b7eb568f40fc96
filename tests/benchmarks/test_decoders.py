"""What is counted of decoders is what the pack does with them."""

from __future__ import annotations

from pathlib import Path

from ComfyUI_DNO.nodes.host.picture.plan import PROBES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_blocks_are_found_at_the_size_at_which_the_pack_finds_them(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import decoders

    find, sides = decoders._blocks, []

    def finding(network, probe):
        sides.append(8 * probe.shape[-1])
        return find(network, probe)

    monkeypatch.setattr(decoders, "_blocks", finding)
    assert decoders.decoder_count("TAESD", 256, by_blocks=True) > 0
    assert sides == [max(PROBES)]
