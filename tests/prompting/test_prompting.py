"""One parser, one prompt builder: what is read, what is shown, what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import TASK, node

from spark_rl.config.recipe import Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import PromptTooLong, UsageError
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.instructions import MODES
from spark_rl.prompting.parsing import parse, respond
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.types import Mode, Parsed, Rendered, Tree


@pytest.mark.parametrize(
    ("text", "mode", "action", "well_formed"),
    [
        ("<think>on it</think><action>go</action>", "think", "go", True),
        (" <explore>\nwhere?\n</explore>\n<action> open box 1 </action>\n", "explore", "open box 1", True),
        ("<explore></explore><action>go</action>", None, "go", False),
        ("<explore> </explore><action>go</action>", None, "go", False),
        ("<explore>a</explore><think>b</think><action>go</action>", None, "go", False),
        ("<explore>a</explore><explore>b</explore><action>go</action>", None, "go", False),
        ("<Explore>a</Explore><action>go</action>", None, "go", False),
        ("<explore>never closed<action>go</action>", None, "go", False),
        ("<explore>a</think><action>go</action>", None, "go", False),
        ("<think>a</think><action>go</action><action>stay</action>", "think", "", False),
        ("<think>a</think>", "think", "", False),
        ("<think>a</think><action></action>", "think", "", False),
        ("<action>go</action><think>a</think>", "think", "go", False),
        ("<explore>a</explore> so <action>go</action>", "explore", "go", False),
        ("<think>an <action> tag</think><action>go</action>", "think", "", False),
        ("<think>a <explore> tag</think><action>go</action>", "think", "go", False),
        ("", None, "", False),
        ("go", None, "", False),
    ],
)
def test_parse(text, mode, action, well_formed):
    parsed = parse(text)
    assert (parsed.mode, parsed.action, parsed.well_formed) == (mode, action, well_formed)


@pytest.mark.parametrize(
    ("text", "mode", "action", "well_formed"),
    [
        ("<planning>Step 1: a.\nStep 2: b.</planning><action>go</action>", "planning", "go", True),
        ("<explore>where?</explore>\n<action>open box 1</action>", "explore", "open box 1", True),
        ("<reflection>that failed</reflection><action>go</action>", "reflection", "go", True),
        (" <monitor>on it</monitor> <action> go </action> ", "monitor", "go", True),
        ("<think>on it</think><action>go</action>", None, "go", False),
        ("<planning></planning><action>go</action>", None, "go", False),
        ("<planning>a</planning><monitor>b</monitor><action>go</action>", None, "go", False),
        ("<planning>a</monitor><action>go</action>", None, "go", False),
        ("<monitor>a <planning> tag</monitor><action>go</action>", "monitor", "go", False),
        ("<monitor>what I <think></monitor><action>go</action>", "monitor", "go", True),
        ("<monitor>a</monitor>", "monitor", "", False),
        ("<action>go</action><reflection>a</reflection>", "reflection", "go", False),
    ],
)
def test_parse_of_rlvmrs_modes(text, mode, action, well_formed):
    parsed = Prompt(modes="rlvmr").parse(text)
    assert (parsed.mode, parsed.action, parsed.well_formed) == (mode, action, well_formed)


def test_each_mode_is_explained_and_its_tags_are_known():
    for modes, names in MODES.items():
        prompt = Prompt(modes=modes)
        head = prompt.render(Tree(TASK, "start"), -1, None).messages[0]["content"]
        assert {name for name in get_args(Mode) if f"<{name}>" in head} == set(names)
        assert all(prompt.parse(respond(name, "so", "go")) == Parsed(name, "so", "go", True) for name in names)
        assert prompt.tags == (*(tag for name in names for tag in (f"<{name}>", f"</{name}>")), "<action>", "</action>")
    with pytest.raises(UsageError, match=r'unknown prompt.modes "rlvr"; did you mean "rlvmr"'):
        Prompt(modes="rlvr")  # type: ignore[arg-type]


def test_a_window_shows_the_last_plan_as_long_as_it_shows_steps():
    prompt = Prompt(Window(1), instructions="none", modes="rlvmr")
    tree = walk(prompt, 3)
    for step, plan in ((0, "Step 1: hide."), (1, "Step 1: seek.")):
        tree.nodes[step] = replace(tree.nodes[step], mode="planning", reasoning=plan)
    shown = [text_of(ids(prompt.render(tree, step, ENCODER))).split("\n")[:3] for step in (-1, 0, 2)]
    assert shown[0][1] == "Observation 1: start"
    assert shown[1] == ["u:Task: find the key", "Your plan: Step 1: hide.", "Steps taken: 1. The last 1:"]
    assert shown[2] == ["u:Task: find the key", "Your plan: Step 1: seek.", "Steps taken: 3. The last 1:"]
    length = len(ids(prompt.render(tree, 2, ENCODER)))
    assert "plan" not in text_of(ids(replace(prompt, limit=length - 1).render(tree, 2, ENCODER)))


@given(st.text())
def test_parse_takes_anything(text):
    parsed = parse(text)
    assert not (parsed.well_formed and (parsed.mode is None or not parsed.action))
    for style in ("react", "plain"):
        parsed = Prompt(instructions=style).parse(text)
        assert parsed.mode is None
        assert not (parsed.well_formed and not parsed.action)


@pytest.mark.parametrize(
    ("text", "reasoning", "action", "well_formed"),
    [
        ("Thought: on it.\nAction: go", "on it.", "go", True),
        (" Thought: first\nthen\nAction:  open box 1 \n", "first\nthen", "open box 1", True),
        ("Thought: on it.\nAction: go\nObservation: You see a box.\nThought: b\nAction: stay", "on it.", "go", False),
        ("Thought: a\nAction: go\nAction: stay", "", "", False),
        ("Thought: a\nAction: go\nThat is it.", "", "go", False),
        ("Thought:\nAction: go", "", "go", False),
        ("Thought: an Action: go", "", "", False),
        ("Action: go", "", "go", False),
        ("Thought: a\nAction:", "", "", False),
        ("Thought: a\nAction:\ngo", "", "", False),
        ("go", "", "", False),
        ("", "", "", False),
    ],
)
def test_react_is_read_line_by_line(text, reasoning, action, well_formed):
    parsed = Prompt(instructions="react").parse(text)
    assert parsed == Parsed(None, reasoning, action, well_formed)


@pytest.mark.parametrize(
    ("text", "action"), [("go", "go"), (" open box 1\n", "open box 1"), ("go\nstay", ""), ("", ""), (" \n ", "")]
)
def test_a_plain_answer_is_the_action(text, action):
    assert Prompt(instructions="plain").parse(text) == Parsed(None, "", action, bool(action))


@pytest.mark.parametrize("style", ["react", "plain"])
def test_instructions_of_prompted_baselines_say_their_own_form_and_no_other(style):
    text = text_of(Prompt(instructions=style).render(walk(Prompt(), 0), -1, ENCODER).ids)
    assert ("Thought:" in text) == (style == "react")
    assert "<think>" not in text
    assert "Task: find the key\nObservation 1: start\nAdmissible actions:\nleft\nright" in text


@pytest.mark.parametrize("style", ["react", "plain"])
def test_what_is_only_prompted_is_not_trained(style):
    with pytest.raises(UsageError, match=f"prompt.instructions is {style}"):
        Recipe("r", Household(), prompt=Prompt(instructions=style))


def test_respond_is_read_back():
    parsed = parse(respond("explore", "Where could it be?", "go to shelf 2"))
    assert (parsed.mode, parsed.reasoning, parsed.action, parsed.well_formed) == (
        "explore",
        "Where could it be?",
        "go to shelf 2",
        True,
    )


class Characters:
    """A tokenizer with a chat template in miniature: a character is a token, `$` ends a turn."""

    eos_token_id = ord("$")

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize
        turns = "".join(f"{message['role'][0]}:{message['content']}$\n" for message in messages)
        return turns + ("a:" if add_generation_prompt else "")

    def __call__(self, text, **_):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids):
        return "".join(map(chr, ids))


ENCODER = ChatEncoder(Characters())


def walk(prompt: Prompt, steps: int, *, cut: int = 0, actions: tuple[str, ...] = ("left", "right")) -> Tree:
    """A path of steps with ids as the prompt renders them; completion number `cut` lacks the end of its turn."""
    tree = Tree(TASK, "start", actions if prompt.list_actions else ())
    for i in range(steps):
        rendered = prompt.render(tree, i - 1, ENCODER)
        text = respond("think", f"r{i}", f"a{i}")
        ids = ENCODER.completion(text)
        tree.nodes.append(
            node(
                i - 1,
                (0,) * (i + 1),
                prompt=rendered.ids,
                completion=ids[:-1] if i + 1 == cut else ids,
                text=text,
                action=f"a{i}",
                observation=f"saw {i}",
                actions=actions if prompt.list_actions else (),
                truncated=rendered.truncated,
            )
        )
    return tree


def ids(rendered: Rendered) -> tuple[int, ...]:
    assert rendered.ids is not None
    return rendered.ids


def text_of(ids) -> str:
    return "".join(map(chr, ids))


def test_window_shows_task_history_observation_and_actions():
    prompt = Prompt(Window(2), instructions="none")
    rendered = prompt.render(walk(prompt, 3), 2, ENCODER)
    assert text_of(rendered.ids) == (
        "u:Task: find the key\n"
        "Steps taken: 3. The last 2:\n"
        "[Observation 2: 'saw 0', Action 2: 'a1']\n"
        "[Observation 3: 'saw 1', Action 3: 'a2']\n"
        "Observation 4: saw 2\n"
        "Admissible actions:\nleft\nright$\na:"
    )
    assert rendered.truncated == 0


def test_the_first_prompt_has_no_history():
    rendered = Prompt(Window(5), instructions="none").render(walk(Prompt(), 0), -1, ENCODER)
    assert text_of(rendered.ids) == "u:Task: find the key\nObservation 1: start\nAdmissible actions:\nleft\nright$\na:"


def test_full_instructions_come_first_and_explain_the_tags():
    text = text_of(Prompt().render(walk(Prompt(), 0), -1, ENCODER).ids)
    assert text.index("<explore>") < text.index("Task: find the key")


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("context", [Transcript(), Transcript("changes"), Transcript("all"), Transcript(repeat_task=True)])
def test_a_transcript_only_appends(cut, context):
    prompt = Prompt(context, instructions="none")
    tree = walk(prompt, 4, cut=cut)
    for i in range(1, 4):
        before = (*tree.nodes[i - 1].prompt, *tree.nodes[i - 1].completion)
        assert tree.nodes[i].prompt[: len(before)] == before
    assert text_of(prompt.render(tree, 3, ENCODER).ids) == text_of(
        ENCODER.conversation(prompt.render(tree, 3, ENCODER).messages)
    )


def test_ids_and_messages_of_a_transcript_agree():
    prompt = Prompt(Transcript(), instructions="none", list_actions=False)
    rendered = prompt.render(walk(prompt, 2), 1, ENCODER)
    assert [message["role"] for message in rendered.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert rendered.messages[0]["content"] == "Task: find the key\nstart"
    assert rendered.messages[-1]["content"] == "saw 1"


def rooms(context: Transcript, limit: int = 10**6) -> list[str]:
    """The turns of a user whose second action opens a door."""
    prompt = Prompt(context, instructions="none", limit=limit)
    tree = walk(prompt, 2)
    tree.nodes[0] = replace(tree.nodes[0], actions=("left", "right"))
    tree.nodes[1] = replace(tree.nodes[1], actions=("right", "enter"))
    messages = prompt.render(tree, 1, ENCODER).messages
    return [message["content"] for message in messages if message["role"] == "user"]


def test_a_transcript_lists_actions_at_the_first_turn_all_turns_or_what_has_changed():
    opening = "Task: find the key\nstart\nAdmissible actions:\nleft\nright"
    assert rooms(Transcript("first")) == [opening, "saw 0", "saw 1"]
    assert rooms(Transcript("all")) == [
        opening,
        "saw 0\nAdmissible actions:\nleft\nright",
        "saw 1\nAdmissible actions:\nright\nenter",
    ]
    assert rooms(Transcript("changes")) == [
        opening,
        "saw 0",
        "saw 1\nAdmissible actions, new (+) and gone (-):\n+ enter\n- left",
    ]


def test_a_shortened_transcript_begins_with_the_list_of_its_first_turn():
    assert rooms(Transcript("first"), limit=150) == [
        "Task: find the key\nsaw 0\nAdmissible actions:\nleft\nright",
        "saw 1",
    ]
    assert rooms(Transcript("changes"), limit=100) == ["Task: find the key\nsaw 1\nAdmissible actions:\nright\nenter"]


@pytest.mark.parametrize("context", [Window(5), Transcript(), Transcript("changes"), Transcript("all")])
def test_too_long_loses_oldest_history_then_actions_and_counts(context):
    whole = Prompt(context, instructions="none", limit=10**6)
    tree = walk(whole, 4)
    longest = len(ids(whole.render(tree, 3, ENCODER)))
    lost = []
    for limit in range(longest, 0, -1):
        try:
            rendered = Prompt(context, instructions="none", limit=limit).render(tree, 3, ENCODER)
        except PromptTooLong as error:
            assert f"prompt.limit is {limit}" in str(error)  # noqa: PT017  the limit is found by walking down
            break
        assert len(ids(rendered)) <= limit
        assert "find the key" in text_of(rendered.ids)
        assert "saw 3" in text_of(rendered.ids)
        if "a3" in text_of(rendered.ids) and isinstance(context, Window):
            assert "right" in text_of(rendered.ids)  # history goes before actions do
        lost.append(rendered.truncated)
    assert lost[0] == 0
    assert lost == sorted(lost)
    assert lost[-1] == 6, "four steps and two actions"


def test_a_template_that_rewrites_turns_is_refused_for_transcripts():
    class Forgetful(Characters):
        def apply_chat_template(self, messages, tokenize, add_generation_prompt):
            kept = [m for m in messages if m["role"] == "user"] if len(messages) > 2 else messages
            return super().apply_chat_template(kept, tokenize, add_generation_prompt)

    prompt = Prompt(Transcript(), instructions="none")
    with pytest.raises(UsageError, match="rewrites earlier turns"):
        prompt.render(walk(prompt, 1), 0, ChatEncoder(Forgetful()))


def test_without_a_tokenizer_there_are_messages_only():
    rendered = Prompt().render(walk(Prompt(), 1), 0, None)
    assert rendered.ids is None
    assert "saw 0" in rendered.messages[0]["content"]
