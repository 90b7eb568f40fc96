"""The translations: complete, of what the nodes say now, and read by ComfyUI as they are meant."""

import json
import re
import shutil

import folder_paths
import pytest
from app.custom_node_manager import CustomNodeManager

from tools import locales

QUOTES = {"zh": "“”", "ja": "「」", "de": "„“", "fr": "«»", "es": "«»", "ru": "«»"}
LETTERS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff]", "ko": "[\uac00-\ud7a3]",
           "ru": "[\u0400-\u04ff]"}  # fmt: skip
# What is said as in English: names and signs in every language, and words that two share with it.
NAMES = {
    *("beta1", "beta2", "cfg", "gamma", "json", "k", "mu", "nesterov", "sigmas", "vae"),
    *("denoise", "latent", "prompt", "sampler", "scheduler", "seed", "dno sampler"),
}
SHARED = {
    "de": {
        *("dno sampler (custom)", "decoder", "encoder", "form", "format", "gradient", "momentum"),
        *("iteration", "name"),
    },
    "fr": {
        *("angle", "directions", "dno options", "effort", "format", "fraction", "gradient"),
        *("gradients", "image", "images", "maximum", "options", "passes", "patience"),
        *("permutations", "question", "second", "source", "strict", "structure", "verdict"),
    },
}

every_language = pytest.mark.parametrize("language", locales.languages())


@pytest.fixture(scope="module")
def schemas():
    return locales.schemas_of_the_pack()


@pytest.fixture(scope="module")
def labels(schemas):
    """The names of all inputs, which tooltips mention."""
    return {each.id for schema in schemas for each in schema.inputs}


def table_of(language) -> dict[str, str]:
    """A language's translations without those of one node's input alone."""
    table = locales.table_of(language)
    return {english: text for english, text in table.items() if not re.match(r"DNO\w+\.", english)}


def test_the_languages_are_those_that_comfyui_is_read_in():
    assert {"de", "es", "fr", "ja", "ko", "pt-BR", "ru", "zh"} <= set(locales.languages())
    folders = {path.name for path in locales.LOCALES.iterdir()}
    assert folders == set(locales.languages())


@every_language
def test_nothing_is_missing_and_nothing_is_stale(language, schemas):
    table = locales.table_of(language)
    assert locales.problems(table, schemas) == {}, "run tools/locales.py and fill in what it added"
    assert list(table) == list(locales.updated(table, schemas)), "run tools/locales.py"


@every_language
def test_the_files_are_what_the_tables_say(language, schemas):
    for path, text in locales.files(language, schemas).items():
        assert path.read_text(encoding="utf-8") == text, "run tools/locales.py"


@every_language
def test_every_node_input_and_output_has_its_words(language, schemas):
    made = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text("utf-8"))
    for schema in schemas:
        node = made[schema.node_id]
        assert node["display_name"] and node["description"]
        inputs, outputs = node.get("inputs", {}), node.get("outputs", {})
        assert list(inputs) == [each.id for each in schema.inputs]
        assert list(outputs) == [str(place) for place in range(len(schema.outputs))]
        for each in [*inputs.values(), *outputs.values()]:
            assert each["name"] and each["tooltip"], schema.node_id


def test_comfyui_serves_them(tmp_path, monkeypatch, schemas):
    shutil.copytree(locales.LOCALES, tmp_path / "pack" / "locales")
    packs = ([str(tmp_path)], set())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", packs)
    served = CustomNodeManager().build_translations()
    assert set(served) == set(locales.languages())
    for language, tree in served.items():
        assert set(tree["nodeDefs"]) == {schema.node_id for schema in schemas}
        assert tree["nodeCategories"]["rewards"] == locales.table_of(language)["rewards"]


@every_language
def test_numbers_names_and_placeholders_stay(language, labels):
    for english, text in table_of(language).items():
        kept = re.findall(r"\d+(?:\.\d+)?|\{\}|#\w+", english)
        for word in re.findall(r"[A-Za-z][\w./-]*\w", english):
            if word not in labels and (sum(map(str.isupper, word)) > 1 or "/" in word):
                kept.append(word)
        lost = [each for each in kept if each not in text]
        assert not lost, f"{english!r} -> {text!r}: {lost}"


@every_language
def test_options_of_a_list_keep_their_names(language, schemas):
    """ComfyUI shows them in English."""
    table = table_of(language)
    for schema in schemas:
        for each in schema.inputs:
            for option in getattr(each, "options", None) or []:
                if re.search(rf"(?<!\w){re.escape(str(option))}:", each.tooltip):
                    assert str(option) in table[each.tooltip], (schema.node_id, each.id, option)


@every_language
def test_a_name_in_quotes_is_the_one_that_is_shown(language, labels):
    table = table_of(language)
    first, last = QUOTES.get(language, '""')
    for english, text in table.items():
        for name in re.findall(f"{first}(.*?){last}", text):
            name = name.strip(" \u00a0")
            assert name in table.values() or "VAE" in name, f"{text}: nothing is called {name}"
        for label in re.findall(r"\w+_\w+", english):
            if label in labels and english != label:
                assert table[label] in text, f"{english} -> {text}"


@every_language
def test_they_are_translated_into_that_language(language):
    for english, text in table_of(language).items():
        if english.endswith("."):
            assert re.search(LETTERS.get(language, "[a-z]"), text), f"{english} -> {text}"
        if text.casefold() == english.casefold():
            assert text.casefold() in NAMES | SHARED.get(language, set()), text
        assert text == text.strip() and not re.search("[\u2013\u2014]|  | - ", text), text
        assert english.endswith(".") == text.endswith((".", "。")), f"{english} -> {text}"


def test_the_tool_asks_for_what_is_new_and_tells_what_is_stale(schemas):
    table = locales.table_of("zh")
    tooltip = schemas[0].inputs[0].tooltip
    told = {("Old words." if english == tooltip else english): w for english, w in table.items()}
    told["DNOSampler.gone"] = "?"
    assert locales.problems(told, schemas) == {
        tooltip: "not translated",
        "Old words.": "no node says it",
        "DNOSampler.gone": "no node says it",
    }
    renewed = locales.updated(told, schemas)
    assert renewed[tooltip] == "" and list(renewed)[-2:] == ["Old words.", "DNOSampler.gone"]
    english = locales.definitions(schemas[:1])
    made = locales.translated(english, renewed)[schemas[0].node_id]
    assert "tooltip" not in made["inputs"][schemas[0].inputs[0].id]  # ComfyUI shows the English


def test_a_word_can_mean_something_else_on_one_node():
    english = {"DNOOne": {"inputs": {"memory": {"name": "memory"}}}}
    other = {"DNOTwo": english["DNOOne"]}
    table = {"memory": "Speicher", "DNOTwo.memory": "Gedächtnis"}
    made = locales.translated(english | other, table)
    assert made["DNOOne"]["inputs"]["memory"]["name"] == "Speicher"
    assert made["DNOTwo"]["inputs"]["memory"]["name"] == "Gedächtnis"
