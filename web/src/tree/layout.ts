/**
 * Where everything of a drawing stands, in two layouts.
 *
 * Invariants: a row belongs to one leaf (or one folded branch), and what is drawn right of a fork lies in the rows of its
 * subtree, so nothing overlaps; hence the space under the stretch before a fork is free, and the fork's words go there.
 * A pure function of its arguments: the widths of boxes come in as `box`.
 *
 * A stretch is a series of steps without a fork. `compact` writes each step's action in a box and folds the inside of a
 * stretch of more than `SHOWN` steps into one (`chain`), unless its first folded step is in `open`; an opened chain
 * begins with a handle (`fold`) that closes it again. All that follows a step in `closed` is one item (`bundle`).
 * `steps` draws each step as a mark in the column of its number.
 */
import { childrenOf, isLeaf, type Shape } from "./shape";

/** A longer stretch shows its first and its last step. */
export const SHOWN = 3;
export const ROW = { compact: 34, steps: 24 } as const;
export const BOX = 24;
/** Half the width of a step's mark. */
const DOT = 5;
const START = 16;
/** Where the column of step 0 would be. */
export const ORIGIN = 10;
const GAP = 14;
const FORK = 22;
/** A stretch with a fork at its end is as wide as some of the fork's words. */
const WORDS = 220;

export type Kind = "compact" | "steps";

export interface Item {
  kind: "step" | "chain" | "fold" | "bundle";
  /** Its steps, in order; for a handle those it would fold; for a bundle the step that it follows. */
  nodes: number[];
  x: number;
  width: number;
  row: number;
}

/** A line to `node`, from the row of what it follows. */
export interface Edge {
  node: number;
  from: number;
  /** Where it leaves the row. */
  x: number;
  row: number;
  to: number;
  toRow: number;
}

export interface Mark {
  /** The node after which it forks, -1 for the start. */
  node: number;
  x: number;
  row: number;
  /** Where the free space under the stretch begins, for words; a folded branch leaves none. */
  left: number;
}

export interface Layout {
  kind: Kind;
  rows: Item[][];
  /** The node at the end of each row: a leaf, or the step before a bundle. */
  ends: number[];
  edges: Edge[];
  marks: Mark[];
  width: number;
  /** The item that shows a node that is not in a bundle. */
  item: Map<number, Item>;
}

export interface Options {
  kind: Kind;
  open: ReadonlySet<number>;
  closed: ReadonlySet<number>;
  /** Width of a step's column, in the layout by step. */
  column: number;
  /** Width of a box that holds this step, or a chain of these. */
  box: (nodes: number[]) => number;
  /** Width of the box of what follows this step. */
  bundle: (node: number) => number;
}

export function layOut(shape: Shape, options: Options): Layout {
  const compact = options.kind === "compact";
  const layout: Layout = { kind: options.kind, rows: [], ends: [], edges: [], marks: [], width: 0, item: new Map() };
  const heights = heightsOf(shape, options.closed);

  const put = (item: Item) => {
    (layout.rows[item.row] ??= []).push(item);
    if (item.kind === "step" || item.kind === "chain") for (const node of item.nodes) layout.item.set(node, item);
    layout.width = Math.max(layout.width, item.x + item.width);
  };

  /** Lines from the end of a stretch to the branches that follow. */
  const branch = (point: number, left: number, end: number, row: number) => {
    const x = end + (compact ? FORK / 2 + 2 : (options.column - 2 * DOT) / 2);
    const next = childrenOf(shape, point);
    if (shape.points.has(point) || (point >= 0 && next.length > 1))
      layout.marks.push({ node: point, x, row, left: options.closed.has(point) ? x : left });
    if (options.closed.has(point)) {
      const to = x + FORK / 2 + 4;
      layout.edges.push({ node: point, from: end, x, row, to, toRow: row });
      layout.ends[row] = point;
      return put({ kind: "bundle", nodes: [point], x: to, width: options.bundle(point), row });
    }
    let below = row + next.reduce((sum, child) => sum + heights[child]!, 0);
    // Last first: where lines share a way, those of the nearer branches lie on top.
    for (const child of [...next].reverse()) {
      below -= heights[child]!;
      const to = compact ? x + FORK / 2 + 4 : ORIGIN + shape.depth[child]! * options.column - DOT;
      layout.edges.push({ node: child, from: end, x, row, to, toRow: below });
      waiting.push([child, to, x + 6, below]);
    }
  };

  const waiting: [first: number, x: number, left: number, row: number][] = [];
  branch(-1, 0, START, 0);
  while (waiting.length) {
    const [first, start, left, row] = waiting.pop()!;
    const stretch = stretchFrom(shape, first);
    const last = stretch.at(-1)!;
    let x = start;
    for (const [index, item] of pieces(stretch, options).entries()) {
      const width = !compact ? 2 * DOT : item.kind === "fold" ? 16 : options.box(item.nodes);
      if (!compact) x = ORIGIN + shape.depth[item.nodes[0]!]! * options.column - DOT;
      const before = index ? layout.rows[row]!.at(-1)! : undefined;
      if (before)
        layout.edges.push({
          node: item.nodes[0]!,
          from: before.x + before.width,
          x: before.x + before.width,
          row,
          to: x,
          toRow: row,
        });
      put({ ...item, x, width, row });
      x += width + GAP;
    }
    if (isLeaf(shape, last)) {
      layout.ends[row] = last;
      continue;
    }
    const shown = layout.rows[row]!.at(-1)!;
    const reach = shown.x + shown.width;
    const end = compact && !options.closed.has(last) ? Math.max(reach, left + WORDS) : reach;
    // The stretch is drawn on to where the branches part.
    if (end > reach) layout.edges.push({ node: last, from: reach, x: reach, row, to: end, toRow: row });
    branch(last, left, end, row);
  }
  return layout;
}

/** Rows that each node's subtree takes. */
function heightsOf(shape: Shape, closed: ReadonlySet<number>): number[] {
  const heights = new Array<number>(shape.size).fill(0);
  for (let node = shape.size - 1; node >= 0; node--) {
    if (isLeaf(shape, node) || closed.has(node)) heights[node] = 1;
    const above = shape.tree.nodes.parent[node]!;
    if (above >= 0) heights[above]! += heights[node]!;
  }
  return heights;
}

/** Steps from `first` to the next fork or the end. */
export function stretchFrom(shape: Shape, first: number): number[] {
  const stretch = [first];
  for (let next = shape.children[first]!; next.length === 1; next = shape.children[next[0]!]!) stretch.push(next[0]!);
  return stretch;
}

function pieces(stretch: number[], options: Options): Pick<Item, "kind" | "nodes">[] {
  const step = (node: number) => ({ kind: "step" as const, nodes: [node] });
  if (options.kind === "steps" || stretch.length <= SHOWN) return stretch.map(step);
  const inside = stretch.slice(1, -1);
  const ends = [step(stretch[0]!), step(stretch.at(-1)!)] as const;
  if (!options.open.has(inside[0]!)) return [ends[0], { kind: "chain", nodes: inside }, ends[1]];
  return [ends[0], { kind: "fold", nodes: inside }, ...inside.map(step), ends[1]];
}

/** Rows of a list that lie in a window of it, and a few more on either side; the end is exclusive. */
export function rowsInView(top: number, height: number, row: number, count: number, more = 4): [number, number] {
  const first = Math.max(0, Math.floor(top / row) - more);
  return [Math.min(first, count), Math.min(count, Math.ceil((top + height) / row) + more)];
}
