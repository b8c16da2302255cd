/**
 * Each fork of a tree in words: who asked, where, for how many, and what the branches found.
 *
 * Invariant: only what the record proves is said. The continuations of a fork are those siblings that were created after
 * the ones that were there before any fork, in the order of the forks. Outcomes were known when a continuation is younger
 * than a leaf below the step that forked, or than all leaves that no fork led to: nodes are in the order of growth.
 */
import { childrenOf, pointOf, type Shape } from "./shape";

export interface Branch {
  node: number;
  won: number;
  of: number;
  added: boolean;
}

export interface Why {
  /** Index in `Tree.forks`. */
  fork: number;
  /** The step that forked; -1 for new roots. */
  node: number;
  /** Where the branches part; -1 for the start. */
  point: number;
  who: "explore" | "outcomes" | "rule";
  extra: number;
  branches: Branch[];
}

/** All forks of a tree, in the order in which they were granted. */
export function whys(shape: Shape): Why[] {
  const { tree } = shape;
  const taken = new Map<number, number>();
  const found = tree.forks.map((fork, index): Why => {
    const [node, , extra] = fork;
    const point = pointOf(tree, fork);
    const siblings = childrenOf(shape, point);
    const granted = shape.points.get(point)!.forks.reduce((sum, other) => sum + tree.forks[other]![2], 0);
    const start = Math.max(0, siblings.length - granted) + (taken.get(point) ?? 0);
    taken.set(point, (taken.get(point) ?? 0) + extra);
    const added = new Set(siblings.slice(start, start + extra));
    const branches = siblings.map((child) => ({
      node: child,
      won: shape.won[child]!,
      of: shape.below[child]!,
      added: added.has(child),
    }));
    return { fork: index, node: node ?? -1, point, who: "rule", extra, branches };
  });
  const original = originals(shape, found);
  for (const why of found) why.who = whoAsked(shape, why, original);
  return found;
}

/** Leaves that no fork led to. */
function originals(shape: Shape, all: Why[]): number[] {
  const forked = new Set(all.flatMap(({ branches }) => branches.filter(({ added }) => added).map(({ node }) => node)));
  for (let node = 0; node < shape.size; node++) if (forked.has(shape.tree.nodes.parent[node]!)) forked.add(node);
  return shape.leaves.filter((leaf) => !forked.has(leaf));
}

function whoAsked(shape: Shape, { node, branches }: Why, original: number[]): Why["who"] {
  const young = Math.min(...branches.filter(({ added }) => added).map((branch) => branch.node));
  // New roots come when nothing is open any more, so the oldest root has ended.
  const top = node < 0 ? shape.roots[0]! : node;
  const older = shape.leaves.slice(shape.row[top]!, shape.row[top]! + shape.below[top]!).filter((leaf) => leaf < young);
  // A leaf one step on may be of the continuation's own round.
  const known =
    older.some((leaf) => shape.depth[leaf]! > shape.depth[top]! + 1) ||
    (older.length > 0 && original.length > 1 && original.every((leaf) => leaf < young));
  if (known || (node < 0 && older.length > 0)) return "outcomes";
  return node >= 0 && shape.tree.nodes.mode[node] === "e" ? "explore" : "rule";
}

/** The sentence before the list of branches. */
export function sentence(shape: Shape, why: Why, action: (node: number) => string): string {
  const [, at, extra, exclude] = shape.tree.forks[why.fork]!;
  const more = extra === 1 ? "one more continuation" : `${extra} more continuations`;
  const fresh = exclude ? ", actions already taken left out" : "";
  if (why.node < 0)
    return `${extra === 1 ? "One more start was" : `${extra} more starts were`} tried${why.who === "outcomes" ? " after outcomes were known" : ""}.`;
  const step = `step ${shape.depth[why.node]}, “${action(why.node)}”`;
  const asked =
    why.who === "outcomes"
      ? "After outcomes were known, the plan went back to"
      : why.who === "explore"
        ? "The agent's reasoning said <explore> at"
        : "The forking rule chose";
  const what =
    at === "after"
      ? `${more} ${extra === 1 ? "was" : "were"} tried from where it led`
      : `${extra === 1 ? "it was sampled once more" : `it was sampled ${extra} more times`}${fresh}`;
  return `${asked} ${step}: ${what}.`;
}
