"""Things of one process: made once, closed once, and never a forked parent's."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from spark_rl.common.process_local import ProcessLocal


def test_a_thing_is_made_once_and_closed_once():
    made, closed = list[str](), list[str]()
    things = ProcessLocal[str, str](lambda key: made.append(key) or key.upper(), closed.append)
    assert [things.of(key) for key in ("a", "b", "a")] == ["A", "B", "A"]
    assert made == ["a", "b"]
    assert things.all() == {"a": "A", "b": "B"}
    things.close()
    things.close()
    assert closed == ["A", "B"]
    assert things.all() == {}
    assert things.of("a") == "A"
    assert made == ["a", "b", "a"], "a closed thing is made anew"
    things.close()


def test_a_forked_child_makes_its_own_and_leaves_its_parents_alone():
    script = """
        import os
        from spark_rl.common.process_local import ProcessLocal
        things = ProcessLocal[str, int](lambda key: os.getpid(), lambda pid: print("closed", pid == os.getpid(), flush=True))
        parent = things.of("a")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            print("own", not things.all() and things.of("a") == os.getpid() != parent, flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["own True", "closed True", "closed True"], "one thing of each process"
