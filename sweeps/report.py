"""What came of a sweep, on one page that needs nothing else; its table and its contact sheet."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import COLOURS, chart, mean_curve
from .pictures import Pictures, contact_sheet
from .plan import Plan
from .rows import Store
from .tables import MANY, Results, Values, gather, markdown
from .words import Failure

ON_A_SHEET, EXTREMES, SHEETS = 12, 4, 12
HERE = Path(__file__).resolve().parent


def write(plan: Plan, store: Store) -> list[Path]:
    """Write report.html and the table, and the contact sheet if the file asks for one."""
    results = gather(plan, store)
    if not results.records and not results.failed:
        raise Failure("Nothing is done yet: there is nothing to report.")
    texts = {store.folder / "report.html": page(results, store)}
    if results.records:
        texts[_beside(plan, store, "table", "table.md")] = markdown(results)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    paths = list(texts)
    if plan.given.get("sheet") and results.records:
        paths.append(_beside(plan, store, "sheet", "sheet.jpg"))
        contact_sheet(results, store).save(paths[-1], quality=90)
    return paths


def _beside(plan: Plan, store: Store, section: str, name: str) -> Path:
    """Where the file wants it: beside itself, else in the results."""
    given = (plan.given.get(section) or {}).get("file")
    return plan.path.parent / given if given else store.folder / name


def page(results: Results, store: Store) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    pictures = Pictures(store)
    shown = {name: rows for name, rows in results.variants.items() if rows}
    return environment.get_template("report.html").render(
        name=results.plan.path.stem,
        summary=summary(results),
        tables=comparison(results, shown),
        legend=list(zip(shown, _colours(len(shown)), strict=True)),
        charts=curves(shown),
        sheets=sheets(shown, pictures),
        extremes=extremes(results, pictures),
        failed=failures(results),
    )


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def summary(results: Results) -> dict[str, str]:
    records = results.records
    done = len(records) + len(results.failed)
    facts = {"rows done": f"{done} of {len(results.plan)}", "failed": f"{len(results.failed)}"}
    if len(results.plan) > MANY:
        facts["told by a sample of"] = f"{MANY}"
    if records:
        seconds = [record["seconds"] for record in records if record["seconds"] is not None]
        peaks = [record["peak_memory"] for record in records if record["peak_memory"]]
        facts["pictures"] = f"{sum(record['made'] or 0 for record in records)}"
        if seconds:
            facts["seconds a row"] = f"{median(seconds):.1f}"
            facts["hours of work"] = f"{sum(seconds) / 3600:.2f}"
        if peaks:
            facts["most memory"] = f"{max(peaks) / 2**30:.2f} GB"
    return facts


def comparison(results: Results, shown: dict[str, dict[int, dict]]) -> list[dict]:
    """For each measure a line for each variant: start, best, gain, and the paired difference."""
    tables = []
    for name in results.measures(results.records):
        if all(_is_reward(record["best"], name) for record in results.records):
            continue
        lines, first = [], None
        for variant, rows in shown.items():
            measure = results.measures(list(rows.values()))[name]
            if not measure.best.count:
                continue
            first = first or (variant, rows)
            difference = None if first[0] == variant else _paired(first[1], rows, name)
            columns = (measure.start, measure.best, measure.gain, difference)
            lines.append((variant, measure.best.count, [_spread(each) for each in columns]))
        if lines:
            tables.append({"name": name, "first": first[0], "lines": lines})
    return tables


def _is_reward(best: dict, name: str) -> bool:
    """Whether a measure is the reward under another name: its only term."""
    return name not in best or (name.startswith("term ") and best[name] == best.get("reward"))


def _paired(first: dict[int, dict], rows: dict[int, dict], name: str) -> Values:
    """Best minus the first variant's best, over what both have."""
    pairs = [(first[p]["best"].get(name), rows[p]["best"].get(name)) for p in rows if p in first]
    return Values(b - a for a, b in pairs if a is not None and b is not None)


def _spread(values: Values | None) -> tuple[str, str]:
    """Mean and standard error, where there are such."""
    if values is None or not values.count:
        return "", ""
    return f"{values.mean:.4g}", f"{values.se:.2g}" if values.count > 1 else ""


def curves(shown: dict[str, dict[int, dict]]) -> list[dict]:
    names = dict.fromkeys(
        name for rows in shown.values() for record in rows.values() for name in record["curves"]
    )
    charts = []
    for name in names:
        if name in ("evaluations", "score") or name.startswith("term "):
            continue
        lines = {v: mean_curve([r["curves"].get(name, []) for r in rows.values()])
                 for v, rows in shown.items()}  # fmt: skip
        if any(len(line) > 1 for line in lines.values()):
            lines = {variant: line or [(0.0, 0.0)] for variant, line in lines.items()}
            charts.append({"name": name, "svg": chart(lines, name)})
    return charts


def sheets(shown: dict[str, dict[int, dict]], pictures: Pictures) -> list[dict]:
    """The same pairs of every variant, and how they started."""
    pairs = sorted({pair for rows in shown.values() for pair in rows})[:ON_A_SHEET]
    lines = []
    for index, (variant, rows) in enumerate(list(shown.items())[:SHEETS]):
        if index == 0 and any(pictures.path(rows[p], "start") for p in pairs if p in rows):
            tiles = [_tile(rows[p], "start", pictures) for p in pairs if p in rows]
            lines.append({"name": "start", "tiles": tiles})
        tiles = [_tile(rows[p], "best", pictures) for p in pairs if p in rows]
        lines.append({"name": variant, "tiles": tiles})
    return [each for each in lines if any(tile["data"] for tile in each["tiles"])]


def _tile(record: dict, at: str, pictures: Pictures) -> dict:
    reward = record[at].get("reward")
    said = "" if reward is None else f"{reward:.3g}"
    return {"data": pictures.small(record, at), "said": said, "words": words(record)}


def words(record: dict) -> str:
    """What tells a row from others of its variant, in a line."""
    values = [str(value) for value in record["settings"].values() if not isinstance(value, list)]
    return ", ".join(dict.fromkeys(value for value in values if value != "None"))


def extremes(results: Results, pictures: Pictures) -> list[dict]:
    """The rows that gained least and most reward."""
    gains = [
        (record["best"]["reward"] - record["start"]["reward"], index, record)
        for index, record in enumerate(results.records)
        if None not in (record["best"].get("reward"), record["start"].get("reward"))
    ]
    gains.sort()
    few = min(EXTREMES, len(gains) // 2)
    chosen = (("worst", gains[:few]), ("best", gains[::-1][:few]))
    groups = []
    for name, rows in chosen:
        told = [
            {
                "variant": record["variant"],
                "words": words(record),
                "gain": f"{record['start']['reward']:.3g} → {record['best']['reward']:.3g}",
                "start": pictures.small(record, "start"),
                "best": pictures.small(record, "best"),
            }
            for _, _, record in rows
        ]
        if told:
            groups.append({"name": name, "rows": told})
    return groups


def failures(results: Results) -> list[tuple[str, int, str]]:
    """Each error once: the sentence, how many rows, one of them."""
    counted: dict[str, list[dict]] = {}
    for record in results.failed:
        counted.setdefault(record["error"], []).append(record)
    return [
        (error, len(rows), f"{rows[0]['variant']}: {words(rows[0])}")
        for error, rows in sorted(counted.items(), key=lambda each: -len(each[1]))
    ]
