"""One small forest a rule, grown from one seed and checked by eye: what must not change unseen.

`forking.sketch` draws a tree: s sun, m moon, r star, w wait, capital where the step explores, ! won; (x;y) is a fork.
"""

from __future__ import annotations

from typing import Any

import pytest
from forking import Hand, check, grow, sketch

from spark_rl.branching.chains import Chains
from spark_rl.branching.entropy import Entropy
from spark_rl.branching.every_step import EveryStep
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.hybrid import Hybrid
from spark_rl.branching.new_roots import NewRoots
from spark_rl.branching.paced import Paced
from spark_rl.branching.probability import Probability
from spark_rl.branching.revisits import Revisits
from spark_rl.contracts import Branching

GROWING: dict[str, Any] = {"roots": 2, "budget": 4, "horizon": 6}
WAITING: dict[str, Any] = {"roots": 2, "budget": 4, "horizon": 6, "cap": 7}


@pytest.mark.parametrize(
    ("rule", "trees"),
    [
        (Chains(), ["Smws. mrm.", "SmsM. mwsss."]),
        (ExploreTag(), ["S(mws.;rS.) mrm.", "S(msM.;rss.) mwsss."]),
        # The step itself is sampled again, so there are two roots more.
        (ExploreTag(3, "decision"), ["Smws. mrm. rmS. ssm.", "SmsM. mwsss. sWmsM. MSWrM."]),
        (Probability(0.3), ["S(mws.;rS.) m(rm.;rM.)", "SmsM. mwsss."]),
        # A step of depth d is d times as unsure as the first: forks from depth 3, whoever comes first.
        (Entropy(2.5), ["Smw(s.;w(Ws.;s.)) mrm.", "Sms(M.;R.) mws(ss.;SS.)"]),
        (Entropy(2.5, "first", 2, "decision"), ["Sm(ws.;s.) mrm.", "Sm(sM.;wsR.) mw(sss.;sSs.)"]),
        (EveryStep(), ["S(mws.;rS.) m(rm.;rM.)", "S(msM.;rss.) m(wsss.;ssS.)"]),
        (Paced(EveryStep(), skip=1), ["Sm(ws.;s.) mr(m.;s.)", "Sm(sM.;wsR.) mw(sss.;sSs.)"]),
        # ceil(2 * d / 6): one leaf from depth 1, the other from depth 4, which the first tree's paths do not continue from.
        (Paced(EveryStep(), spread=True), ["S(mws.;rS.) mrm.", "S(msM.;rss.) mwss(s.;S.)"]),
    ],
    ids=str,
)
def test_rules_that_decide_while_growing(rule: Branching, trees: list[str]):
    policy = Hand()
    forest = grow([3, 4], rule, policy, seed=1, **GROWING)
    check(forest, policy, **GROWING)
    assert [sketch(tree) for tree in forest] == trees


@pytest.mark.parametrize(
    ("rule", "trees", "discarded"),
    [
        # Two groups have lost all, the third is mixed: two leaves a tree are left, none is refused.
        (Revisits(), ["Sr. mR. sS! Swm.", "Smws. m(rm.;rM.) rmS.", "swsssS! Sw(ssRS.;mMmr.) ssrsww."], 0),
        (Revisits(one_by_one=True), ["Sr. mR. sS! Swm.", "Smws. m(rm.;rM.) rmS.", "swss(sS!;sm.) SwssRS. ssrsww."], 0),
        (Revisits(rarer=False), ["Sr. mR. sS! Swm.", "Smws. m(rm.;rM.;Ms.)", "swss(sS!;sm.) Swss(RS.;ss!)"], 0),
        (Revisits(steps="entropy"), ["Sr. mR. sS! Swm.", "Smws. m(rm.;rM.;Ms.)", "s(wsssS!;sSmr.) Sws(sRS.;SSw.)"], 0),
        (Revisits(tagged=True), ["Sr. mR. sS! Swm.", "Smws. mrm. rmS. ssm.", "swsssS! SwssRS. ssrsww. srrss."], 0),
        # No first step is taken twice, nor a second one below m.
        (Revisits(exclude=True), ["Sr. mR. wSS! swm.", "Smws. m(rm.;sM.) rmS.", "swsssS! Sw(ssRS.;mMmr.) Ssrsww."], 26),
        (NewRoots(), ["Sr. mR. sS! Swm.", "Smws. mrm. rmS. ssm.", "swsssS! SwssRS. ssrsww. srrss."], 0),
        # New roots for the first two, forks for the third.
        (Hybrid(), ["Sr. mR. sS! Swm.", "Smws. mrm. rmS. ssm.", "swss(sS!;rm.) SwssRS. Ssrsww."], 12),
    ],
    ids=str,
)
def test_rules_that_wait_for_outcomes(rule: Branching, trees: list[str], discarded: int):
    policy = Hand()
    forest = grow([2, 3, 5], rule, policy, seed=1, **WAITING)
    check(forest, policy, **WAITING)
    assert [sketch(tree) for tree in forest] == trees
    assert forest.spent.discarded == discarded
