"""Laws of `--set path=value`: one place changes and nothing else; what is refused changes nothing."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from groklab.errors import SpecError
from groklab.settings import apply_setting


def data() -> dict[str, Any]:
    return {
        "task": {"kind": "modular", "operation": "a+b", "modulus": 97, "noise": None},
        "measures": ["weight_norm"],
        "arms": {
            "adam-w 2": {"optimizer": {"kind": "adamw", "weight_decay": 1.0}, "methods": []},
            "ema": {"methods": [{"kind": "a", "when": {"kind": "always"}}, {"kind": "b", "x": [[1, 2], [3]]}]},
        },
    }  # fmt: skip


def after(*settings: str) -> dict[str, Any]:
    changed = data()
    for setting in settings:
        apply_setting(changed, setting)
    return changed


def refusal(setting: str) -> str:
    untouched = data()
    with pytest.raises(SpecError) as caught:
        apply_setting(untouched, setting)
    assert untouched == data()
    return str(caught.value)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("113", 113),
        ("3e-3", 0.003),
        ("true", True),
        ('"*"', "*"),
        ("'a b'", "a b"),
        ("[1, 2]", [1, 2]),
        ('{kind = "sgd", momentum = 0.9}', {"kind": "sgd", "momentum": 0.9}),
        ("1979-05-27", datetime.date(1979, 5, 27)),
    ],
)
def test_a_value_is_toml(text, value):
    changed = after(f"task.modulus={text}")["task"]["modulus"]
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize("text", ["*", "a/b", "a=b", "x^2 + y^2", "yes", "True", "97.", "", "9" * 5000])
def test_what_is_not_toml_is_a_bare_string(text):
    assert after(f"task.operation={text}")["task"]["operation"] == text


def test_spaces_around_the_equals_sign_mean_nothing():
    assert after(" task.modulus =  5 ") == after("task.modulus=5")


@given(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
def test_any_value_written_as_toml_arrives_unchanged(value):
    written = tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")
    assert after(f"task.modulus={written}")["task"]["modulus"] == value


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reach"),
    [
        ("task.modulus", lambda d: d["task"]),
        ("task.new", lambda d: d["task"]),
        ("arms.adam-w 2.optimizer.weight_decay", lambda d: d["arms"]["adam-w 2"]["optimizer"]),
        ("arms.ema.methods[1].x", lambda d: d["arms"]["ema"]["methods"][1]),
        ("arms.ema.methods[0].when.step", lambda d: d["arms"]["ema"]["methods"][0]["when"]),
        ("arms.ema.methods[0].when.kind", lambda d: d["arms"]["ema"]["methods"][0]["when"]),
    ],
)
def test_a_path_sets_one_place_and_nothing_else(path, reach):
    expected = data()
    reach(expected)[path.rpartition(".")[2]] = 5
    assert after(f"{path}=5") == expected


@pytest.mark.parametrize(
    ("path", "reach"),
    [
        ("measures[0]", lambda d: (d["measures"], 0)),
        ("arms.ema.methods[0]", lambda d: (d["arms"]["ema"]["methods"], 0)),
        ("arms.ema.methods[1].x[0][1]", lambda d: (d["arms"]["ema"]["methods"][1]["x"][0], 1)),
    ],
)
def test_an_index_sets_one_entry_of_a_list(path, reach):
    expected = data()
    holder, index = reach(expected)
    holder[index] = "new"
    assert after(f"{path}=new") == expected


@pytest.mark.parametrize(
    ("path", "reach"),
    [
        ("measures", lambda d: d["measures"]),
        ("arms.adam-w 2.methods", lambda d: d["arms"]["adam-w 2"]["methods"]),
        ("arms.ema.methods[1].x[1]", lambda d: d["arms"]["ema"]["methods"][1]["x"][1]),
    ],
)
def test_plus_equals_appends_to_a_list(path, reach):
    expected = data()
    reach(expected).append({"kind": "k"})
    assert after(path + '+={kind="k"}') == expected
    assert after(path + ' += {kind="k"}') == expected


def test_settings_apply_in_order():
    assert after("measures+=one", "measures[1]=two", "measures+=three")["measures"] == ["weight_norm", "two", "three"]


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_another_kind_drops_the_keys_of_the_old_one():
    assert after("task.kind=other")["task"] == {"kind": "other"}
    assert after("arms.ema.methods[1].kind=other")["arms"]["ema"]["methods"][1] == {"kind": "other"}


def test_the_same_kind_keeps_the_keys_beside_it():
    assert after("task.kind=modular") == data()


def test_a_kind_where_there_was_none_keeps_the_keys_beside_it():
    expected = data()
    expected["arms"]["kind"] = {"methods": []}
    assert after("arms.kind={methods=[]}") == expected


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("tsk.modulus=5", "unknown key 'tsk' in the spec: allowed are arms, measures, task (did you mean 'task'?)"),
        ("arms.emma.methods=[]", "unknown key 'emma' in arms: allowed are adam-w 2, ema (did you mean 'ema'?)"),
        ("arms.ema.metods[0]=x", "unknown key 'metods' in arms.ema: allowed are methods (did you mean 'methods'?)"),
        ("taks+=x", "unknown key 'taks' in the spec: allowed are arms, measures, task (did you mean 'task'?)"),
        ("arms.ema.methods[2].x=1", "arms.ema.methods has 2 entries, there is no [2]"),
        ("arms.ema.methods[2]=1", "arms.ema.methods has 2 entries, there is no [2]"),
        ("measures[9999999999999999999]=1", "measures has 1 entries, there is no [9999999999999999999]"),
        ("task[0]=1", "task is not a list, there is no [0]"),
        ("task.modulus[0]=1", "task.modulus is a plain value, it has no parts"),
        ("task.operation[0]=1", "task.operation is a plain value, it has no parts"),
        ("task.modulus+=1", "task.modulus is not a list, so += cannot append to it"),
        ("arms+=1", "arms is not a list, so += cannot append to it"),
        ("task.operation.x=1", "task.operation is a plain value, it has no parts"),
        ("task.modulus.x=1", "task.modulus is a plain value, it has no parts"),
        ("arms.ema.methods.kind=1", "arms.ema.methods has no parts named 'kind'"),
        ("task.noise.x.y=1", "task.noise is a plain value, it has no parts"),
        ("task..modulus=1", "'task..modulus' is not a path such as arms.adamw.methods[0].strength"),
        ("task.modulus[x]=1", "'task.modulus[x]' is not a path such as arms.adamw.methods[0].strength"),
        ("measures[-1]=1", "'measures[-1]' is not a path such as arms.adamw.methods[0].strength"),
        ("=1", "'' is not a path such as arms.adamw.methods[0].strength"),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_gets_one_sentence_and_changes_nothing(setting, sentence):
    assert refusal(setting) == f"setting '{setting}': {sentence}"


def test_a_setting_without_an_equals_sign_is_told_how_to_write_one():
    assert refusal("task.modulus") == (
        "setting 'task.modulus' has no '=': write path=value, for example task.modulus=113"
    )
