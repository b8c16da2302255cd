/**
 * What follows from a tree's parent list: children, depth, leaves and wins below, rows, and where it forks.
 *
 * Invariants: every array has one entry a node; rows are numbered as the leaves are met depth first, children in order
 * of creation, so that a node's subtree is the rows `row[n] .. row[n] + below[n] - 1`, and a first child continues its
 * parent's row. Nothing here knows of pixels.
 *
 * One pass over the nodes finds children (parents come first), one reversed pass sums what lies below.
 */
import type { Fork, Tree } from "../contract";

export const WELL_FORMED = 1;
export const ADMISSIBLE = 2;
export const SUCCESS = 4;
export const DONE = 8;
export const REPEATED = 16;
export const SHORTENED = 32;

/** Where a tree forks: the node after which the branches part, -1 for the start. */
export interface Point {
  node: number;
  /** Indices in `Tree.forks`, in order. */
  forks: number[];
}

export interface Shape {
  tree: Tree;
  size: number;
  roots: number[];
  children: number[][];
  /** Steps from the start: 1 for a first step. */
  depth: number[];
  /** Leaves below, and how many of them were won. */
  below: number[];
  won: number[];
  row: number[];
  /** Leaves by row. */
  leaves: number[];
  points: Map<number, Point>;
}

export function shapeOf(tree: Tree): Shape {
  const { parent, flags } = tree.nodes;
  const size = parent.length;
  const roots: number[] = [];
  const children: number[][] = parent.map(() => []);
  const depth: number[] = [];
  parent.forEach((above, node) => {
    depth.push(above < 0 ? 1 : depth[above]! + 1);
    (above < 0 ? roots : children[above]!).push(node);
  });
  const below = new Array<number>(size).fill(0);
  const won = new Array<number>(size).fill(0);
  for (let node = size - 1; node >= 0; node--) {
    if (!children[node]!.length) {
      below[node] = 1;
      won[node] = flags[node]! & SUCCESS ? 1 : 0;
    }
    const above = parent[node]!;
    if (above >= 0) {
      below[above]! += below[node]!;
      won[above]! += won[node]!;
    }
  }
  const row = new Array<number>(size).fill(0);
  const leaves: number[] = [];
  const place = (siblings: number[], first: number) => {
    for (const child of siblings) {
      row[child] = first;
      first += below[child]!;
    }
  };
  place(roots, 0);
  for (let node = 0; node < size; node++) {
    place(children[node]!, row[node]!);
    if (!children[node]!.length) leaves[row[node]!] = node;
  }
  return { tree, size, roots, children, depth, below, won, row, leaves, points: pointsOf(tree) };
}

/** A fork at a decision samples the step again, so its branches part where the step's parent ends. */
export function pointOf(tree: Tree, fork: Fork): number {
  const [node, at] = fork;
  if (node === null) return -1;
  return at === "after" ? node : tree.nodes.parent[node]!;
}

function pointsOf(tree: Tree): Map<number, Point> {
  const points = new Map<number, Point>();
  tree.forks.forEach((fork, index) => {
    const node = pointOf(tree, fork);
    const known = points.get(node);
    if (known) known.forks.push(index);
    else points.set(node, { node, forks: [index] });
  });
  return points;
}

/** What continues from a node (-1: from the start). */
export function childrenOf(shape: Shape, node: number): number[] {
  return node < 0 ? shape.roots : shape.children[node]!;
}

/** Steps from the first one down to `node`, both included. */
export function pathTo(shape: Shape, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at >= 0; at = shape.tree.nodes.parent[at]!) path.push(at);
  return path.reverse();
}

/** The same place in the other siblings: none for an only child. */
export function siblingsOf(shape: Shape, node: number): number[] {
  return childrenOf(shape, shape.tree.nodes.parent[node]!).filter((other) => other !== node);
}

export const isLeaf = (shape: Shape, node: number) => !shape.children[node]!.length;

/** Why a step did not do what it said; empty for one that did. */
export function fault(flags: number): "" | "malformed" | "inadmissible" {
  if (!(flags & WELL_FORMED)) return "malformed";
  return flags & ADMISSIBLE ? "" : "inadmissible";
}
