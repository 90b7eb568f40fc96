"""Tables, curves and the page: numbers by hand, one file that needs nothing else."""

import json
import re

import pytest
from PIL import Image

from sweeps import plan as plans
from sweeps import report
from sweeps.charts import mean_curve, ticks
from sweeps.pictures import contact_sheet
from sweeps.rows import Store
from sweeps.tables import Measure, Values, gather, markdown
from tools.home import Failure

GRAPH = {"1": {"class_type": "Nothing", "inputs": {"prompt": "", "level": 0}}}
PROMPTS = ["a cat", "a <dog>", "an owl"]
REWARDS = {"none": [0.1, 0.2, 0.6], "much": [0.3, 0.5, 0.7]}


@pytest.fixture
def sweep(tmp_path):
    """Two variants over three prompts, all done but one, which failed."""

    def run_sweep(**more):
        given = {
            "workflow": GRAPH,
            "results": "results",
            "vary": [{"1.prompt": PROMPTS}],
            "variants": {"none": {}, "much": {"1.level": 1}},
            **more,
        }
        (tmp_path / "s.json").write_text(json.dumps(given))
        plan = plans.read(tmp_path / "s.json")
        store = Store(plan.results)
        with store.held() as run, store.batch(run, 0) as batch:
            for number in range(len(plan)):
                row = plan.row(number)
                batch.add(done(store, row, REWARDS[row.variant][row.pair], run))
        return plan, store

    return run_sweep


def done(store, row, reward, run):
    record = {"key": row.key, "number": row.number, "run": run, "variant": row.variant, "made": 1}
    if row.variant == "much" and row.pair == 2:
        return record | {"error": "Sampler: it <failed>"}
    folder = store.pictures / row.key
    folder.mkdir(parents=True)
    for at, level in (("start", 0), ("best", int(255 * reward))):
        Image.new("RGB", (32, 32), (level,) * 3).save(folder / f"{at}_00001_.png")
    return record | {
        "seconds": 2.0,
        "start": {"reward": 0.0, "P(z)": 0.5},
        "best": {"reward": reward, "P(z)": 0.25},
        "curves": {"reward": [0.0, reward / 2, reward], "evaluations": [4.0, 16.0, 28.0]},
        "pictures": [f"{row.key}/best_00001_.png", f"{row.key}/start_00001_.png"],
    }


def test_the_page_holds_everything_itself(sweep):
    plan, store = sweep()
    path, table = report.write(plan, store)
    page = path.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) == []
    assert page.count("<img") >= 10 and "viewport" in page and "<script" not in page
    assert "a &lt;dog&gt;" in page and "<dog>" not in page and "it &lt;failed&gt;" in page
    assert "nan" not in page.split("<svg")[1].split("</svg>")[0]
    assert table.read_text().startswith("| variant | reward | P(z) |\n|---|---|---|\n| none |")


def test_differences_are_paired(sweep):
    plan, store = sweep()
    results = gather(plan, store)
    (line,) = (t for t in report.comparison(results, results.variants) if t["name"] == "reward")
    assert [(variant, count) for variant, count, _ in line["lines"]] == [("none", 3), ("much", 2)]
    # 0.3 - 0.1 and 0.5 - 0.2: mean 0.25, standard error 0.05
    assert line["lines"][1][2][3] == ("0.25", "0.05")


def test_a_table_is_what_the_file_describes(sweep):
    table = {
        "label": "variant | what",
        "line": "{variant} | x",
        "start": "(start) | y",
        "columns": {
            "reward": "{reward.best:.3f} ± {reward.best.se:.2f}",
            "P(z)": "{P(z).best.median:.2g}",
            "moved": "{reward.moved[0.2]} of {rows}",
            "within": "{reward.within[16]:+.2f}",
            "above": "{reward.best.above[0.25]}",
        },
        "last": "{pairs} prompts, best {reward.best.sum:.1f}",
    }
    plan, store = sweep(table=table)
    assert markdown(gather(plan, store)).splitlines() == [
        "| variant | what | reward | P(z) | moved | within | above |",
        "|---|---|---|---|---|---|---|",
        "| (start) | y | 0.000 ± 0.00 | 0.5 | 2 of 3 | +0.15 | 0 |",
        "| none | x | 0.300 ± 0.15 | 0.25 | 2 of 3 | +0.15 | 1 |",
        "| much | x | 0.400 ± 0.10 | 0.25 | 2 of 2 | +0.20 | 2 |",
        "",
        "3 prompts, best 1.7",
    ]


def test_a_line_for_each_row(sweep):
    table = {
        "lines": "rows",
        "line": "{settings[Nothing.prompt]}",
        "columns": {"r": "{reward.start:.1f} -> {reward.best:.1f}", "y": "{reward.best.yes}"},
    }
    plan, store = sweep(table=table)
    assert markdown(gather(plan, store)).splitlines()[2:5] == [
        "| a cat | 0.0 -> 0.1 | no |",
        "| a <dog> | 0.0 -> 0.2 | no |",
        "| an owl | 0.0 -> 0.6 | yes |",
    ]


def test_a_measure_that_is_not_there_is_told(sweep):
    plan, store = sweep(table={"columns": {"x": "{rewrad.best}"}})
    with pytest.raises(Failure, match=r"cannot be filled in .*there are reward, P\(z\)"):
        markdown(gather(plan, store))


def test_gains_within_a_budget_are_of_the_best_so_far():
    curves = {"reward": [1.0, 3.0, 2.0, 5.0], "evaluations": [8.0, 20.0, 30.0, 40.0]}
    record = {"start": {"reward": 1.0}, "best": {"reward": 5.0}, "curves": curves}
    within = Measure("reward", [record]).within
    assert [within[budget].mean for budget in (8, 29, 30, 40)] == [0.0, 2.0, 2.0, 4.0]
    assert within[7].count == 0


def test_the_contact_sheet_has_variants_down_and_pairs_across(sweep):
    plan, store = sweep(sheet={"start": "start", "columns": 2})
    sheet = contact_sheet(gather(plan, store), store)
    levels = [[sheet.getpixel((150 + 36 * c, 20 + 36 * r))[0] for c in (0, 1)] for r in range(3)]
    assert levels == [[0, 0], [25, 51], [76, 127]]


def test_statistics_by_hand():
    values = Values([1.0, 2.0, 3.0, 6.0, None])
    assert (values.count, values.mean, values.median) == (4, 3.0, 3.0)
    assert values.se == pytest.approx((14 / 3) ** 0.5 / 2)
    assert mean_curve([[0.0, 2.0], [2.0]]) == [(1.0, pytest.approx(1.0)), (2.0, 0.0)]
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
