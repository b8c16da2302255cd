/**
 * Which trees of a forest are listed.
 *
 * Invariant: an entry passes when it passes every filter that is set. Pure functions over the index of a forest; what
 * is written in the steps is searched only where the forest is open.
 */
import type { Forest, Run, TreeEntry } from "../contract";

export interface Filters {
  text: string;
  mixed: boolean;
  forks: boolean;
  /** Empty: all. */
  kind: string;
}

export const NONE: Filters = { text: "", mixed: false, forks: false, kind: "" };

/** Indices of the trees to list, in order. */
export function chosen(run: Run, trees: readonly TreeEntry[], filters: Filters, forest?: Forest): number[] {
  const words = filters.text.trim().toLowerCase();
  const inside = forest && words ? treesWith(forest, words) : undefined;
  return trees.flatMap((entry, index) => {
    const task = run.tasks[entry.task];
    if (filters.mixed && !(entry.won > 0 && entry.won < entry.leaves)) return [];
    if (filters.forks && !entry.forks) return [];
    if (filters.kind && task?.kind !== filters.kind) return [];
    if (words && !`${task?.instruction} ${task?.id}`.toLowerCase().includes(words) && !inside?.has(index)) return [];
    return [index];
  });
}

/** Trees of which a step's action or reasoning holds the words (in lower case). */
function treesWith(forest: Forest, words: string): Set<number> {
  const holds = forest.strings.map((text) => text.toLowerCase().includes(words));
  const found = new Set<number>();
  forest.trees.forEach(({ nodes }, index) => {
    if (nodes.action.some((text) => holds[text]) || nodes.reasoning.some((text) => holds[text])) found.add(index);
  });
  return found;
}

/** Steps of one tree whose action or reasoning holds the words. */
export function stepsWith(forest: Forest, tree: number, text: string): Set<number> {
  const words = text.trim().toLowerCase();
  const found = new Set<number>();
  const nodes = forest.trees[tree]?.nodes;
  if (!nodes || words.length < 2) return found;
  nodes.action.forEach((action, node) => {
    if (`${forest.strings[action]}\n${forest.strings[nodes.reasoning[node]!]}`.toLowerCase().includes(words)) found.add(node);
  });
  return found;
}

/** The tree that shows most: mixed outcomes and forks first, then few steps. */
export function mostTelling(trees: readonly TreeEntry[]): number {
  const worth = (entry: TreeEntry) => [+(entry.won > 0 && entry.won < entry.leaves), +(entry.forks > 0), -entry.steps];
  let best = 0;
  trees.forEach((entry, index) => {
    const [a, b] = [worth(entry), worth(trees[best]!)];
    const at = a.findIndex((value, i) => value !== b[i]);
    if (at >= 0 && a[at]! > b[at]!) best = index;
  });
  return best;
}

/** Iterations in which a task was grown, and the first of its trees in each. */
export function occurrences(run: Run, task: string): Map<number, number> {
  const number = run.tasks.findIndex((known) => known.id === task);
  const found = new Map<number, number>();
  for (const forest of run.forests) {
    const tree = forest.trees.findIndex((entry) => entry.task === number);
    if (tree >= 0) found.set(forest.iteration, tree);
  }
  return found;
}
