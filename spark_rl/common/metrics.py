"""The metrics of training: each name of metrics.jsonl, what it means, and where it is shown.

Invariants
----------
* Each name that a row may hold is declared here once. The terminal, the page of reports and docs/run-directory.md take names
  and texts from here; a test trains and finds no other name in its rows.
* A number is computed elsewhere: `rollout.metrics.summarise` and the trainers write the rows. A new metric is a line there
  and a `Metric` here.

The numbers of an evaluation are the fields of `evaluation.results.LevelResult`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CURVES", "METRICS", "PROGRESS", "SUMMARY", "Curve", "Metric", "declared"]

Unit = Literal["number", "count", "share", "steps", "tokens", "seconds", "nats"]
"""`share` is from 0 to 1 and shown in percent; `steps` are environment steps, unless the text says otherwise."""


@dataclass(frozen=True)
class Curve:
    """A chart of the page, with one or several metrics over the iterations."""

    id: str
    title: str
    hint: str = ""
    """What to look for. It follows what the metric is about; a chart of several lines says all here."""


@dataclass(frozen=True)
class Metric:
    """One name in a row of metrics.jsonl."""

    name: str
    """`{word}` stands for what varies: `seconds_{phase}` is `seconds_generate`, `seconds_update` and so on."""
    about: str
    """What it means, in a sentence."""
    unit: Unit = "number"
    curve: str = ""
    """Id of the page's chart that shows it; empty: the page offers it under "More"."""
    role: Literal["line", "low", "high"] = "line"
    """In its chart: a line, or an end of the interval around it."""
    label: str = ""
    """What its line is called where a chart has several."""
    summary: str = ""
    """What the summary of a run in a terminal (`spark-rl show`) calls its curve; empty: it is not there."""
    progress: bool = False
    """Whether it is shown while a run goes on."""


CURVES = (
    Curve("success", "Success in training", "Other tasks each time, so it jumps; look at the trend."),
    Curve("dev", "Success on the development slice", "This is the curve that says whether it learns."),
    Curve("reward", "Reward"),
    Curve(
        "kl",
        "Distance from the start",
        "Solid: divergence from the cold start, should grow slowly. Dashed: how far one update moved. "
        "A jump warns of collapse.",
    ),
    Curve("rollout_gap", "Rollout against trainer", "Should stay small; above 0.02 an importance weight corrects for it."),
    Curve("explore_ratio", "Exploring steps", "These are where SPARK forks. Zero means that nothing is forked any more."),
    Curve("invalid_ratio", "Invalid steps", "Should fall."),
    Curve("repetitive_ratio", "Repeated actions", "High values are loops."),
    Curve("zero_signal_groups", "Trees without a signal", "Nothing is learnt from them."),
    Curve("steps", "Steps of a trajectory", "Falls as the agent gets to the point."),
    Curve("forks", "Forks"),
    Curve("coverage_gain", "Forks that told something", "Only these compare choices."),
    Curve("gradient_snr", "Gradient, signal to noise", "Higher: the trees agree on what to change."),
)
"""In the order of the page."""

_ROLLOUT = (
    Metric("iteration", "Number of the iteration, from 1.", "count"),
    Metric(
        "success",
        "Share of this iteration's trajectories that solved their task.",
        "share",
        curve="success",
        summary="success",
        progress=True,
    ),
    Metric(
        "reward",
        "Mean sum of rewards along a trajectory, as the environment gave them.",
        curve="reward",
        progress=True,
    ),
    Metric(
        "dev_success",
        "Share of the development tasks that were solved: the same held-out tasks each time, with a 95 % interval.",
        "share",
        curve="dev",
        summary="success, dev",
        progress=True,
    ),
    Metric("dev_low", "Lower end of the 95 % interval of `dev_success`.", "share", curve="dev", role="low"),
    Metric("dev_high", "Upper end of the 95 % interval of `dev_success`.", "share", curve="dev", role="high"),
    Metric("dev_steps", "Mean steps of an episode on the development tasks.", "steps"),
    Metric("dev_invalid_ratio", "Share of the steps on the development tasks that were malformed or inadmissible.", "share"),
    Metric("steps", "Mean length of a trajectory.", "steps", curve="steps"),
    Metric("trees", "Trees grown, those that dynamic sampling added among them.", "count"),
    Metric("leaves", "Mean leaves of a tree.", "count"),
    Metric("budget_used", "Leaves opened over `tree.budget` times trees.", "share"),
    Metric("unique_steps", "Steps of all trees, each counted once however many trajectories share it.", "steps"),
    Metric("duplicated_over_unique", "Steps of all trajectories over `unique_steps`: what one row a leaf would cost more."),
    Metric(
        "zero_signal_groups",
        "Share of trees whose leaves all came to the same return.",
        "share",
        curve="zero_signal_groups",
    ),
    Metric(
        "explore_ratio",
        "Share of unique steps whose reasoning says `<explore>`.",
        "share",
        curve="explore_ratio",
        summary="explore ratio",
    ),
    Metric(
        "explore_ratio_{interval}",
        "Share of the unique steps of an interval of depths (`1_5`, `6_10`, ...) in explore mode.",
        "share",
    ),
    Metric(
        "invalid_ratio",
        "Share of unique steps that are malformed, or ask for what cannot be done.",
        "share",
        curve="invalid_ratio",
        summary="invalid steps",
    ),
    Metric("malformed_ratio", "Share of unique steps whose completion does not have the form that was asked for.", "share"),
    Metric("inadmissible_ratio", "Share of unique steps that are well formed and whose action is not admissible.", "share"),
    Metric(
        "repetitive_ratio",
        "Share of unique steps that do again what was done earlier on their trajectory in the same state.",
        "share",
        curve="repetitive_ratio",
    ),
    Metric("truncated_ratio", "Share of unique steps whose prompt was shortened to fit.", "share"),
    Metric("empty_ratio", "Share of unique steps whose completion was empty.", "share"),
    Metric("forks", "Continuations granted in this iteration, over all its trees.", "count", curve="forks", summary="forks"),
    Metric("fork_depth", "Mean depth of the granted continuations; a new root has 0.", "steps"),
    Metric(
        "fork_depth_{interval}",
        "Share of the granted continuations in an interval of depths: `0` (new roots), `1_5`, `6_10`, ...",
        "share",
    ),
    Metric(
        "coverage_gain",
        "Share of continuations whose siblings came to different ends.",
        "share",
        curve="coverage_gain",
    ),
    Metric("same_action_siblings", "Share of pairs of siblings below a fork that took the same action.", "share"),
    Metric("completion_tokens", "Mean tokens of a step's completion.", "tokens"),
    Metric("prompt_tokens", "Mean tokens of a step's prompt.", "tokens"),
)

_COSTS = (
    Metric("generated", "Tokens sampled.", "tokens"),
    Metric("prefilled", "Prompt tokens that went through the model.", "tokens"),
    Metric("reused", "Prompt tokens whose keys and values came from the cache.", "tokens"),
    Metric("cache_hits", "Share of prompt tokens whose keys and values came from the cache.", "share"),
    Metric("misses", "Requests whose parent's cache had been evicted.", "count"),
    Metric("discarded", "Tokens of `generated` whose completion was thrown away, as its action had been taken.", "tokens"),
    Metric("trained", "Tokens that went through the model with gradients.", "tokens"),
    Metric("env_steps", "Environment steps that made a step of a tree.", "steps"),
    Metric("replayed", "Environment steps taken again to reach an earlier state.", "steps"),
    Metric("env_forks", "Copies made of an environment's state.", "count"),
    Metric("states_kept", "Most environment states held at once for later forks.", "count"),
    Metric("failed", "Trees dropped because their environment failed.", "count"),
    Metric("restarts", "Processes of the environment or the engine that died or hung and were replaced.", "count"),
    Metric("preempted", "Times that an engine gave up keys and values for want of memory, to compute them again.", "count"),
    Metric("queued", "Milliseconds that requests waited in an engine until they ran, summed over requests."),
    Metric("seconds", "Wall-clock time of the whole iteration.", "seconds"),
    Metric(
        "seconds_{phase}", "Wall-clock time of a phase of the iteration: `generate`, `environment`, `update`, ...", "seconds"
    ),
)

_UPDATE = (
    Metric("trained_groups", "Trees that the update learnt from.", "count"),
    Metric(
        "gradient_snr",
        "Squared mean over variance of a group's gradient, before the update (`optimizer.measure_noise`).",
        curve="gradient_snr",
    ),
    Metric(
        "update_reference_kl",
        "Mean divergence of the policy from the cold start, on the tokens that were learnt from.",
        "nats",
        curve="kl",
        label="from the cold start",
        summary="KL to cold start",
    ),
    Metric(
        "update_kl",
        "Mean divergence of the sampling policy from the new one, after the update.",
        "nats",
        curve="kl",
        label="of one update",
    ),
    Metric("update_old_kl", "Mean divergence of the policy from the one before the update, over its steps.", "nats"),
    Metric("update_entropy", "Mean entropy of the distributions that tokens were sampled from.", "nats"),
    Metric("update_loss", "Mean loss of an optimiser step."),
    Metric("update_grad_norm", "Mean norm of the gradient before it is clipped."),
    Metric("update_clip_fraction", "Share of the tokens whose gradient was clipped, either way.", "share"),
    Metric("update_dual_clip_fraction", "Share of the tokens whose gradient the dual clip cut off.", "share"),
    Metric("update_ratio_max", "Largest ratio of new to old probability of a token."),
    Metric("update_rollout_kl", "Mean of rollout minus trainer log-probability before the first optimiser step.", "nats"),
    Metric(
        "update_rollout_gap",
        "Mean distance of rollout and trainer log-probability before the first optimiser step.",
        "nats",
        curve="rollout_gap",
    ),
    Metric(
        "update_rollout_gap_max", "Largest difference of rollout and trainer log-probability before the first step.", "nats"
    ),
    Metric("update_importance", "Cap of the importance weight between rollout and trainer; 0: there is none."),
    Metric("update_steps", "Optimiser steps of the update.", "count"),
    Metric(
        "update_trained_tokens",
        "Tokens that went through the model with gradients, each once where rows share them, padding aside.",
        "tokens",
    ),
    Metric("update_sampled_tokens", "Sampled tokens that were trained on; equal tokens of siblings count each.", "tokens"),
)

_PREFERENCES = (
    Metric("pairs", "Pairs of a won and a lost trajectory that `spark-rl eto` learnt from.", "count"),
    Metric("dpo_loss", "Mean loss of ETO's preferences."),
    Metric("dpo_margin", "Mean difference of the rewards that DPO gives to the won and to the lost trajectory."),
    Metric("dpo_accuracy", "Share of the pairs whose won trajectory has the higher of these rewards.", "share"),
    Metric("dpo_steps", "Optimiser steps on the pairs.", "count"),
)

METRICS = (*_ROLLOUT, *_COSTS, *_UPDATE, *_PREFERENCES)
PROGRESS = tuple(metric.name for metric in METRICS if metric.progress)
"""Names that are shown while a run goes on, in this order."""
SUMMARY = tuple(metric for metric in METRICS if metric.summary)
"""Curves of a run's summary in a terminal, in this order."""


def declared(name: str, metrics: Sequence[Metric] = METRICS) -> Metric | None:
    """The metric that a name in a row belongs to; one with that very name before a family."""
    exact = next((metric for metric in metrics if metric.name == name), None)
    return exact or next((metric for metric in metrics if re.fullmatch(_pattern(metric), name)), None)


def _pattern(metric: Metric) -> str:
    return re.sub(r"\\{\w+\\}", r"\\w+", re.escape(metric.name))
