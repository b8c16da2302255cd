/**
 * What the agent said it was doing when it wrote a step.
 *
 * Invariant: a mode is one character in the payload, one class (`m-` and the character) in the style sheet, and one word here.
 */
import type { Forest } from "../contract";

/** In the order of a legend. Planning, reflection and monitor are RLVMR's (arXiv 2507.22844), which also explores. */
export const MODES: Record<string, string> = {
  e: "explore",
  t: "think",
  p: "planning",
  r: "reflection",
  m: "monitor",
  "-": "no mode",
};

/** Modes worth a word wherever a step is named: thinking is what all steps do, and what is malformed is said already. */
export const namedMode = (mode: string | undefined): string => (mode === "t" || mode === "-" ? "" : (MODES[mode ?? ""] ?? ""));

/** Those that occur in a forest; of none yet, the two that SPARK has. */
export function modesOf(forest: Forest | undefined): string[] {
  const seen = new Set(forest ? forest.trees.flatMap((tree) => [...tree.nodes.mode]) : ["e", "t"]);
  return Object.keys(MODES).filter((mode) => seen.has(mode));
}
