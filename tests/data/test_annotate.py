"""A teacher's reasons: what is asked, what of an answer can be used, what is asked again, and what never changes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import DEFECTS, Body, Served, serving, teach
from shown import WORLD, as_first_version, lost, won

from spark_rl.cli import main
from spark_rl.config.recipe import Recipe
from spark_rl.data.annotate import PROMPT_VERSION, Annotator, Asking, Unusable, question, read
from spark_rl.data.checks import check
from spark_rl.data.format import Demonstration, load, save
from spark_rl.engines.openai import Endpoint, connect
from spark_rl.errors import UsageError
from spark_rl.prompting.instructions import MODES
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript

ACTIONS = ["go to fridge 1", "open fridge 1"]
PROMPT = Prompt(Transcript(), instructions="none")


@pytest.fixture
def file(tmp_path) -> Path:
    save(won(), tmp_path / "demos.jsonl", Prompt())
    return tmp_path / "demos.jsonl"


def learnt(shown: Demonstration) -> int:
    return len(shown.tree.nodes) - len(shown.slips)


def actions(some: Sequence[Demonstration]) -> list[list[str]]:
    return [[node.action for node in shown.tree.nodes] for shown in some]


# -- the question ---------------------------------------------------------------------------------------------------


def test_a_piece_shows_the_steps_before_and_asks_for_what_is_learnt_of_it():
    shown = next(shown for shown in won() if len(shown.tree.nodes) > 8 and any(2 <= slip < 6 for slip in shown.slips))
    nodes = shown.tree.nodes
    [message] = question(shown, 2, 6)
    *path, form = message["content"].split("\n\n")[3:]
    assert path[0] == f"Task: {shown.tree.task.instruction}"
    assert len(path) == 1 + 6
    for step, part in enumerate(path[1:]):
        seen = nodes[step - 1].observation if step else shown.tree.observation
        middle = f"Reason ({nodes[step].mode}): {nodes[step].reasoning}" if step < 2 else "Reason: ?"
        middle = "A mistake, left as it is." if step in shown.slips else middle
        assert part == f"Step {step + 1} of {len(nodes)}\nSeen: {seen}\n{middle}\nAction: {nodes[step].action}"
    wanted = [nodes[step].action for step in range(2, 6) if step not in shown.slips]
    assert json.loads(form.splitlines()[-1]) == {
        "steps": [{"action": action, "mode": "", "reason": ""} for action in wanted]
    }


# -- the answer -----------------------------------------------------------------------------------------------------


def entries(**last: Any) -> list[dict[str, Any]]:
    first = {"action": ACTIONS[0], "mode": "explore", "reason": "It may be there."}
    return [first, {"action": ACTIONS[1], "mode": "think", "reason": "Now to look inside."} | last]


GOOD = [
    "<explore>It may be there.</explore><action>go to fridge 1</action>",
    "<think>Now to look inside.</think><action>open fridge 1</action>",
]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"steps": entries()}),
        json.dumps(entries()),
        f"Here it is [as asked]:\n```json\n{json.dumps({'steps': entries()}, indent=2)}\n```\nAnything else?",
        f"<think>Steps {{1}} and {{2}}...</think>{json.dumps({'steps': entries()})}",
        json.dumps({"steps": entries(reason="<think>Now to look inside.</think>")}),
        json.dumps({"steps": entries(mode="", reason="<think>Now to look inside.</think>")}),
        json.dumps({"steps": entries(mode=None, reason="<Think>Now to look inside.")}),
        json.dumps({"steps": entries(mode="THINK", reason="Now to look inside.</think>")}),
        json.dumps({"steps": entries(action=" open fridge 1 ", note="so")}),
        json.dumps({"steps": entries(reason="Now to\nlook inside.")}).replace("\\n", "\n"),
    ],
)
def test_usual_defects_are_mended(text):
    assert read(text, ACTIONS) == GOOD


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no", "holds no JSON of the form"),
        ('{"steps": ["go"]}', "holds no JSON of the form"),
        (json.dumps({"steps": entries()})[:-4], "holds no JSON of the form"),
        (json.dumps({"steps": entries()[:1]}), "holds 1 steps, and 2 were asked for"),
        (json.dumps({"steps": [*entries(), *entries()]}), "holds 4 steps"),
        (json.dumps({"steps": entries(action="dance")}), 'step 2 has the action "dance", which must stay "open fridge 1"'),
        (json.dumps({"steps": entries(mode="plan")}), "step 2 must have one mode, explore or think, and has plan"),
        (json.dumps({"steps": entries(mode="")}), "and has none"),
        (json.dumps({"steps": entries(reason="<explore>Now</explore>")}), "and has explore and think"),
        (json.dumps({"steps": entries(reason="<think>a</think><think>b</think>")}), "step 2 must have one mode"),
        (json.dumps({"steps": entries(reason=" ")}), "step 2 has the reason"),
        (json.dumps({"steps": entries(reason="<action>go</action>")}), "one sentence without tags"),
    ],
)
def test_what_cannot_be_used_is_said(text, words):
    with pytest.raises(Unusable) as caught:
        read(text, ACTIONS)
    assert words in str(caught.value)


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="piece is 0"):
        Asking(piece=0)


# -- asking ---------------------------------------------------------------------------------------------------------


def annotated(served: Served, given: Sequence[Demonstration], **asking: Any) -> list[Demonstration | str]:
    async def run() -> list[Demonstration | str]:
        async with connect("m", Endpoint(served.url), None) as server:
            return await Annotator(server, Asking(**asking)).annotate(given)

    pytest.importorskip("openai", reason="the extra teacher is not installed")
    return asyncio.run(run())


def pieces(given: Sequence[Demonstration], size: int) -> int:
    """Questions that these trajectories need."""
    return sum(
        any(step not in shown.slips for step in range(start, min(start + size, len(shown.tree.nodes))))
        for shown in given
        for start in range(0, len(shown.tree.nodes), size)
    )


@pytest.mark.parametrize("prompt", [Prompt(), PROMPT])
def test_reasons_change_and_nothing_else(tmp_path, prompt):
    given = won(prompt=prompt)
    with serving(teach) as served:
        done = [one for one in annotated(served, given, piece=4) if isinstance(one, Demonstration)]
    assert len(served.bodies) == pieces(given, 4)
    assert all(body["response_format"]["json_schema"]["strict"] for body in served.bodies)
    assert actions(done) == actions(given)
    for before, after in zip(given, done, strict=True):
        assert after.slips == before.slips
        for step, (old, new) in enumerate(zip(before.tree.nodes, after.tree.nodes, strict=True)):
            if step in before.slips:
                assert new == old
            else:
                assert new.reasoning == f"It is time to {new.action}."
                assert replace(new, text=old.text, mode=old.mode, reasoning=old.reasoning) == old
        assert (after.origin.source, after.origin.author, after.origin.prompt_version) == ("annotated", "m", PROMPT_VERSION)
        assert after.origin.date.endswith(" UTC")
    save(done, tmp_path / "out.jsonl", prompt)
    found = check(tmp_path / "out.jsonl", lambda _: WORLD, replay=True)
    assert (found.objections, found.notes, found.replayed) == ([], [], len(given))


@pytest.mark.parametrize("defect", DEFECTS)
def test_an_answer_that_cannot_be_used_is_asked_for_again_with_what_is_wrong(defect):
    given = won()[:1]
    with serving(lambda body: teach(body, defect if len(body["messages"]) == 1 else None)) as served:
        [done] = annotated(served, given, piece=30)
    assert isinstance(done, Demonstration)
    first, second = served.bodies
    assert second["messages"][:2] == [*first["messages"], {"role": "assistant", "content": teach(first, defect)}]
    assert second["messages"][2]["content"].startswith("This cannot be used: it")


def test_attempts_end_and_equal_bad_answers_are_asked_for_anew():
    with serving(lambda body: "no") as served:
        [why] = annotated(served, won()[:1], attempts=3)
    assert len(served.bodies) == 3
    assert [body["seed"] for body in served.bodies] == [0, 1, 2]
    assert isinstance(why, str)
    assert "none of 3 answers could be used; of the last, it holds no JSON" in why


def test_an_answer_that_was_cut_says_what_helps():
    with serving(lambda body: teach(body, "cut"), finish="length") as served:
        [why] = annotated(served, won()[:1], attempts=1, max_tokens=77)
    assert "it was cut at 77 tokens (raise max_tokens, or lower piece)" in str(why)


@pytest.mark.parametrize(("structured", "fine"), [("auto", True), ("none", True), ("json-schema", False)])
def test_a_server_without_forms_is_asked_without_them(structured, fine):
    def reply(body: Body) -> str | tuple[int, str]:
        return (400, "response_format is not known") if "response_format" in body else teach(body)

    with serving(reply) as served:
        done = annotated(served, won()[:2], piece=30, structured=structured)
    assert [isinstance(one, Demonstration) for one in done] == [fine, fine]
    plain = [body for body in served.bodies if "response_format" not in body]
    assert len(plain) == (2 if fine else 0)
    assert len(served.bodies) - len(plain) == (0 if structured == "none" else 2)


# -- the command ----------------------------------------------------------------------------------------------------


def run(served: Served, file: Path, *more: str, out: str = "out.jsonl") -> int:
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    words = ["--teacher", "some/model", "--base-url", served.url, "--out", str(file.with_name(out))]
    return main(["annotate", str(file), *words, *more])


def test_the_command_writes_a_file_that_passes_and_asks_nothing_twice(file, capsys):
    save([*won(), *lost()], file, Prompt())
    with serving(teach) as served:
        assert run(served, file) == 0
        said = capsys.readouterr()
        asked, out = len(served.bodies), file.with_name("out.jsonl")
        first = out.read_bytes()
        assert f"{len(won())} trajectories" in said.out
        assert "2 lost trajectories of" in said.err
        assert f"{asked} requests (0 more" in said.err
        out.unlink()
        assert run(served, file) == 0
        assert len(served.bodies) == asked
        assert out.read_bytes() == first
    assert main(["data", "check", str(out), "--replay"]) == 0
    assert f"{len(won())} annotated by some/model, level L2" in capsys.readouterr().out


def test_a_trajectory_whose_answers_cannot_be_used_is_named_and_kept_apart(file, capsys):
    poor = won()[1].tree.task

    def reply(body: Body) -> str:
        return teach(body, "short" if f"Task: {poor.instruction}\n" in body["messages"][0]["content"] else None)

    bad = [shown for shown in won() if shown.tree.task.instruction == poor.instruction]
    with serving(reply) as served:
        assert run(served, file, "--attempts", "2") == 0
        said = capsys.readouterr()
        refused = file.with_name("out.refused.jsonl")
        assert f"{len(bad)} not annotated: {refused}" in said.out
        assert f"not annotated: task {poor.id}: steps 1 to " in said.err
        assert actions(load(refused)) == actions(bad)
        assert len(load(file.with_name("out.jsonl"))) == len(won()) - len(bad)
        # The rest can be tried again; where all fail there is no file.
        assert run(served, refused, "--attempts", "2", out="again.jsonl") == 2
        assert f"none of {len(bad)} trajectories was annotated" in capsys.readouterr().err
        assert not file.with_name("again.jsonl").exists()
    with serving(teach) as served:
        assert run(served, file, "--piece", "9") == 0
    assert not refused.exists(), "nothing of this file is refused now"


def test_a_dry_run_prints_a_question_and_asks_nobody(file, capsys):
    assert main(["annotate", str(file), "--dry-run", "--piece", "2", "--base-url", "http://127.0.0.1:9/v1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[user]\nBelow are a task")
    assert "Step 2 of" in out
    assert "Step 3 of" not in out


def test_a_test_task_is_refused_before_anything_is_asked(file, capsys):
    shown = won()[0]
    tested = replace(shown, tree=replace(shown.tree, task=WORLD.tasks("L2", "test")[0]))
    save([*won(), tested], file, Prompt())
    with serving(teach) as served:
        assert run(served, file) == 2
    assert "is a test task of level" in capsys.readouterr().err
    assert served.bodies == []


def recipe() -> Recipe:
    """What made the file, for those that do not say."""
    return Recipe("made", WORLD, level="L2")


def test_a_file_of_the_first_version_needs_a_recipe(file, capsys, monkeypatch):
    as_first_version(file)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with serving(teach) as served:
        assert run(served, file) == 2
        assert "give --recipe NAME" in capsys.readouterr().err
        assert run(served, file, "--recipe", "test_annotate:recipe") == 0
    assert main(["data", "check", str(file.with_name("out.jsonl")), "--recipe", "test_annotate:recipe"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "demos.jsonl"], "would replace demos.jsonl"),
        (["--out", "x.jsonl"], "the teacher has no name: give --teacher MODEL"),
        (["--teacher", "m", "--attempts", "0"], "attempts is 0"),
        (["--teacher", "m", "--structured", "maybe"], "--structured"),
    ],
)
def test_mistakes_are_sentences(file, capsys, monkeypatch, words, said):
    monkeypatch.chdir(file.parent)
    assert main(["annotate", "demos.jsonl", *words]) == 2
    assert said in capsys.readouterr().err


def test_only_what_was_won_is_annotated(file, capsys):
    save(lost(), file, Prompt())
    assert main(["annotate", str(file), "--teacher", "m"]) == 2
    assert "holds no won trajectory" in capsys.readouterr().err
    save(won(), file, Prompt())
    other = file.with_name("other.jsonl")
    save(won(), other, PROMPT)
    file.write_text(file.read_text() + other.read_text().replace('"trajectory": 0,', '"trajectory": 9,'))
    assert main(["annotate", str(file), "--teacher", "m"]) == 2
    assert "mixes worlds, levels or renderings" in capsys.readouterr().err


def test_a_file_in_four_modes_is_annotated_in_four_modes(file, capsys):
    prompt = Prompt(modes="rlvmr")
    save(given := won(prompt=prompt), file, prompt)

    def reply(body: Body) -> str:
        text, first = teach(body), "Step 1 of" in body["messages"][0]["content"] and "Reason (" not in str(body)
        if len(body["messages"]) == 1 and "Step 5 of" in str(body):
            return text  # it thinks, which is none of the four
        return text.replace('"explore"', '"planning"' if first else '"reflection"').replace('"think"', '"monitor"')

    with serving(reply) as served:
        assert run(served, file, "--piece", "4") == 0
    question, form = served.bodies[0]["messages"][0]["content"], served.bodies[0]["response_format"]["json_schema"]["schema"]
    assert "It has one of four modes:\n- planning: " in question
    assert "each mode (planning, explore, reflection or monitor) and reason" in question
    assert form["properties"]["steps"]["items"]["properties"]["mode"]["enum"] == list(MODES["rlvmr"])
    again = [body["messages"][2]["content"] for body in served.bodies if len(body["messages"]) == 3]
    assert all("must have one mode, planning, explore, reflection or monitor, and has think" in said for said in again)
    assert again
    out = file.with_name("out.jsonl")
    assert not check(out, lambda _: WORLD, replay=True).objections
    done = load(out)
    assert actions(done) == actions(given)
    assert {one.tree.nodes[0].mode for one in done if 0 not in one.slips} == {"planning"}
    said = {node.mode for one in done for step, node in enumerate(one.tree.nodes) if step not in one.slips}
    assert said >= {"reflection", "monitor"}


def test_a_key_is_in_no_file_and_no_message(file, capsys, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame-1234567890")

    def reply(body: Body) -> str | tuple[int, str]:
        return (401, "no such key: sesame-1234567890") if len(served.bodies) > 3 else teach(body, "short")

    with serving(reply) as served:
        assert run(served, file, "--concurrency", "1") == 2
        assert served.headers[0]["authorization"] == "Bearer sesame-1234567890"
    said = capsys.readouterr()
    everything = [said.out, said.err, caplog.text, *(path.read_text() for path in file.parent.iterdir())]
    assert len(everything) == 5  # what was given, and the answers so far
    assert not any("sesame" in text for text in everything)
