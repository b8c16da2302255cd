/**
 * Which declared metric a column is. Pure.
 *
 * Invariant: it says what `declared` of `spark_rl/common/metrics.py` says.
 */
import type { Metric } from "../contract";

/** The metric of that very name, or else the family that it belongs to, such as `seconds_{phase}`. */
export const metricOf = (name: string, metrics: readonly Metric[]): Metric | undefined =>
  metrics.find((metric) => metric.name === name) ??
  metrics.find((metric) => new RegExp(`^${metric.name.replace(/\{\w+\}/g, "\\w+")}$`).test(name));
