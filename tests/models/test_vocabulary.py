"""Which pieces are learnt from texts small enough to count by hand."""

from __future__ import annotations

from spark_rl.models.vocabulary import learn_pieces

TEXTS = ["You open fridge 1. In it you see an egg 1.", "You open cabinet 2. In it you see an egg 1."] * 5


def test_names_words_and_phrases() -> None:
    pieces = learn_pieces(TEXTS, room=100, min_count=10)
    # "fridge 1" and "cabinet 2" occur 5 times each, too few to be names. Words by use, then phrases.
    assert pieces == [
        " 1", ". ", "In ", "You ", "an ", "egg", "it ", "open ", "see ", "you ", ". In it you see an ", "You open ",
    ]  # fmt: skip


def test_no_piece_joins_a_name_or_its_noun_with_anything() -> None:
    texts = ["I need an egg now. Go to the fridge. Take egg 1 from fridge 1."] * 10
    pieces = learn_pieces(texts, room=100, min_count=5)
    assert [piece for piece in pieces if "egg" in piece or "fridge" in piece or "1" in piece] == [" 1", "egg", "fridge"]
    assert {"I need an ", " now. Go to the ", ". Take ", " from "} <= set(pieces)


def test_no_piece_crosses_a_barrier() -> None:
    texts = ["<think>so it is</think><action>look around</action>"] * 10
    pieces = learn_pieces(texts, room=100, min_count=5, barriers=("<think>", "</think>", "<action>", "</action>"))
    assert {"so it is", "look around"} <= set(pieces)
    assert not any("<" in piece or ">" in piece for piece in pieces)


def test_rare_pieces_and_a_lack_of_room_leave_pieces_out() -> None:
    assert learn_pieces(["take mug 1", "open safe 1"], room=10, min_count=2) == []
    texts = ["go to mug 1"] * 9 + ["look here"] * 3
    assert learn_pieces(texts, room=3, min_count=2) == [" 1", "go ", "mug"]
    assert learn_pieces(texts, room=7, min_count=2) == [" 1", "go ", "mug", "to ", "here", "look ", "go to "]
    assert learn_pieces([], room=10, min_count=1) == []


def test_the_order_of_the_texts_does_not_matter() -> None:
    texts = [f"You put cup {i % 3} in drawer {i % 5}. Then you walk." for i in range(40)] + ["It is dark. You wait."] * 7
    pieces = learn_pieces(texts, room=60, min_count=2)
    assert learn_pieces(texts[::-1], room=60, min_count=2) == pieces
