/**
 * Which curves a run is shown by, in words for somebody who has not read the paper.
 *
 * Invariant: names of columns are those of `spark_rl/rollout/metrics.py` and the trainer; a curve without data is not shown.
 */
import type { Curve } from "./lines";

export const CURVES: Curve[] = [
  {
    id: "success",
    title: "Success in training",
    why: "Share of this iteration's trajectories that solved their task. Other tasks each time, so it jumps; look at the trend.",
    columns: [{ name: "success" }],
    share: true,
  },
  {
    id: "dev",
    title: "Success on the development slice",
    why: "The same held-out tasks each time, with a 95 % interval. This is the curve that says whether it learns.",
    columns: [{ name: "dev_success" }],
    band: ["dev_low", "dev_high"],
    share: true,
  },
  {
    id: "reward",
    title: "Reward",
    why: "Mean sum of rewards along a trajectory, as the environment gave them.",
    columns: [{ name: "reward" }],
  },
  {
    id: "kl",
    title: "Distance from the start",
    why: "Solid: divergence from the cold start, should grow slowly. Dashed: how far one update moved. A jump warns of collapse.",
    columns: [
      { name: "update_reference_kl", label: "from the cold start" },
      { name: "update_kl", label: "of one update" },
    ],
  },
  {
    id: "explore_ratio",
    title: "Exploring steps",
    why: "Share of steps whose reasoning says <explore>: these are where SPARK forks. Zero means that nothing is forked any more.",
    columns: [{ name: "explore_ratio" }],
    share: true,
  },
  {
    id: "invalid_ratio",
    title: "Invalid steps",
    why: "Share of steps that are malformed, or ask for what cannot be done. Should fall.",
    columns: [{ name: "invalid_ratio" }],
    share: true,
  },
  {
    id: "repetitive_ratio",
    title: "Repeated actions",
    why: "Share of steps that do again what was done before in the same state. High values are loops.",
    columns: [{ name: "repetitive_ratio" }],
    share: true,
  },
  {
    id: "zero_signal_groups",
    title: "Trees without a signal",
    why: "Share of trees whose leaves all came to the same return: nothing is learnt from them.",
    columns: [{ name: "zero_signal_groups" }],
    share: true,
  },
  {
    id: "steps",
    title: "Steps of a trajectory",
    why: "Mean length. Falls as the agent gets to the point.",
    columns: [{ name: "steps" }],
  },
  {
    id: "forks",
    title: "Forks",
    why: "Continuations granted in this iteration, over all its trees.",
    columns: [{ name: "forks" }],
  },
  {
    id: "coverage_gain",
    title: "Forks that told something",
    why: "Share of continuations whose siblings came to different ends. Only these compare choices.",
    columns: [{ name: "coverage_gain" }],
    share: true,
  },
  {
    id: "gradient_snr",
    title: "Gradient, signal to noise",
    why: "Squared mean over variance of a group's gradient. Higher: the trees agree on what to change.",
    columns: [{ name: "gradient_snr" }],
  },
];
