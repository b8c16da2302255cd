/** Trees for tests: a parent list draws one. */
import type { Fork, Tree } from "../src/contract";
import { ADMISSIBLE, DONE, SUCCESS, WELL_FORMED } from "../src/tree/shape";

export function tree(parent: number[], won: number[] = [], forks: Fork[] = [], mode = "t".repeat(parent.length)): Tree {
  const inner = new Set(parent);
  const each = <T>(value: T) => parent.map(() => value);
  return {
    task: 0,
    observation: 0,
    opened: 0,
    cap: 0,
    horizon: 0,
    forks,
    nodes: {
      parent,
      mode,
      action: parent.map((_, node) => node),
      reasoning: each(0),
      observation: each(0),
      text: {},
      flags: parent.map(
        (_, node) => WELL_FORMED | ADMISSIBLE | (inner.has(node) ? 0 : DONE) | (won.includes(node) ? SUCCESS : 0),
      ),
      reward: each(0),
      tokens: each(1),
      logprob: each(null),
      entropy: each(null),
      advantage: each(null),
    },
  };
}

/** A random parent list: mostly chains, now and then a fork or a new root. */
export function random(size: number, seed: number): number[] {
  let state = seed * 2654435761 + 1;
  const next = (below: number) => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return Math.floor((state / 4294967296) * below);
  };
  return Array.from({ length: size }, (_, node) => (node === 0 ? -1 : next(4) ? node - 1 : next(node + 1) - 1));
}
