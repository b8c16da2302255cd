/**
 * What of a drawing is folded: the insides of long stretches, and in a large tree whole branches.
 *
 * Invariant: a value is never changed, but replaced. `open` holds the chains that are open, by their first folded step;
 * `closed` the steps whose branches are one item.
 *
 * A large tree begins with about `ROWS` rows: from the start, the largest branch is opened as long as they suffice.
 */
import { SHOWN, stretchFrom } from "./layout";
import { childrenOf, pathTo, type Shape } from "./shape";

export interface Folds {
  open: ReadonlySet<number>;
  closed: ReadonlySet<number>;
}

const ROWS = 40;
/** Smaller branches are shown whole when what holds them is opened. */
const SMALL = 8;

/** As a tree is shown at first. */
export function folded(shape: Shape): Folds {
  return { open: new Set(), closed: branches(shape) };
}

export function unfolded(shape: Shape): Folds {
  return { open: new Set(chains(shape)), closed: new Set() };
}

export function toggleChain({ open, closed }: Folds, chain: number): Folds {
  const next = new Set(open);
  if (!next.delete(chain)) next.add(chain);
  return { open: next, closed };
}

export function toggleBranches({ open, closed }: Folds, node: number): Folds {
  const next = new Set(closed);
  if (!next.delete(node)) next.add(node);
  return { open, closed: next };
}

/** The same with a step in sight. */
export function showing(shape: Shape, folds: Folds, node: number): Folds {
  if (node < 0) return folds;
  const chain = chainOf(shape, node);
  const above = pathTo(shape, node)
    .slice(0, -1)
    .filter((step) => folds.closed.has(step));
  if (!above.length && (chain < 0 || folds.open.has(chain))) return folds;
  const closed = new Set(folds.closed);
  for (const step of above) closed.delete(step);
  return { open: chain < 0 ? folds.open : new Set([...folds.open, chain]), closed };
}

function branches(shape: Shape): Set<number> {
  const closed = new Set<number>();
  if (shape.leaves.length <= 1.5 * ROWS) return closed;
  const ends = (nodes: number[]) =>
    nodes.map((node) => stretchFrom(shape, node).at(-1)!).filter((end) => shape.children[end]!.length);
  const frontier = ends(shape.roots);
  const opened = new Set<number>();
  let rows = shape.roots.length;
  for (;;) {
    const fitting = frontier.filter((end) => rows + shape.children[end]!.length - 1 <= ROWS);
    if (!fitting.length) break;
    const largest = fitting.reduce((best, end) => (shape.below[end]! > shape.below[best]! ? end : best));
    frontier.splice(frontier.indexOf(largest), 1, ...ends(shape.children[largest]!));
    opened.add(largest);
    rows += shape.children[largest]!.length - 1;
  }
  for (const end of frontier) closed.add(end);
  for (let node = 0; node < shape.size; node++) {
    if (shape.children[node]!.length > 1 && !opened.has(node) && shape.below[node]! > SMALL) closed.add(node);
  }
  return closed;
}

/** The key of each chain of a tree. */
export function chains(shape: Shape): number[] {
  const found: number[] = [];
  for (let node = 0; node < shape.size; node++) {
    const above = shape.tree.nodes.parent[node]!;
    if (above >= 0 && childrenOf(shape, above).length === 1) continue;
    if (stretchFrom(shape, node).length > SHOWN) found.push(shape.children[node]![0]!);
  }
  return found;
}

/** The key of the chain that a node is folded in when closed; -1 when it always shows. */
export function chainOf(shape: Shape, node: number): number {
  const { parent } = shape.tree.nodes;
  let first = node;
  while (parent[first]! >= 0 && shape.children[parent[first]!]!.length === 1) first = parent[first]!;
  const stretch = stretchFrom(shape, first);
  if (stretch.length <= SHOWN || node === first || node === stretch.at(-1)) return -1;
  return stretch[1]!;
}
