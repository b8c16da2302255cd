/**
 * The class that colours a step: by what came of it, by its advantage, or by its mode.
 *
 * Invariant: colour repeats what symbols and words say. The style sheet gives each class its `--c`: o0 (all lost) .. o4
 * (all won), a0 (most negative) .. a6 (most positive), unknown, m- and a mode.
 */
import type { Hue } from "../state";
import type { Shape } from "../tree/shape";

export function hueClass(shape: Shape, node: number, hue: Hue): string {
  const { mode, advantage } = shape.tree.nodes;
  if (hue === "mode") return `m-${mode[node]}`;
  if (hue === "advantage") return advantageClass(advantage[node] ?? null);
  return outcomeClass(shape.won[node]!, shape.below[node]!);
}

export function outcomeClass(won: number, of: number): string {
  if (!won) return "o0";
  if (won === of) return "o4";
  const share = won / of;
  return share < 0.4 ? "o1" : share > 0.6 ? "o3" : "o2";
}

export function advantageClass(value: number | null): string {
  if (value === null) return "unknown";
  const steps = Math.min(3, Math.ceil(Math.abs(value) / 0.5 - 1e-9));
  return `a${Math.abs(value) < 0.005 ? 3 : value < 0 ? 3 - steps : 3 + steps}`;
}
