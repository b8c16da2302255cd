/**
 * Where an arrow key leads in a drawing.
 *
 * Invariant: from any item, any other can be reached; a key that leads nowhere leads to where one is. Right and left
 * follow the tree (next step, first branch; step before), up and down go to the nearest item of the neighbouring row.
 */
import type { Item, Layout } from "./layout";
import { childrenOf, type Shape } from "./shape";

export type Key = "ArrowRight" | "ArrowLeft" | "ArrowUp" | "ArrowDown" | "Home" | "End" | "PageUp" | "PageDown";
const PAGE = 10;

export function move(shape: Shape, layout: Layout, item: Item, key: Key): Item {
  const row = layout.rows[item.row]!;
  const at = row.indexOf(item);
  switch (key) {
    case "ArrowRight": {
      if (row[at + 1]?.nodes[0] !== undefined && follows(shape, item, row[at + 1]!)) return row[at + 1]!;
      const child = item.kind === "bundle" ? undefined : childrenOf(shape, item.nodes.at(-1)!)[0];
      return (child !== undefined && layout.item.get(child)) || item;
    }
    case "ArrowLeft": {
      if (at > 0 && (item.kind === "bundle" || row[at - 1]!.kind === "fold")) return row[at - 1]!;
      const above = shape.tree.nodes.parent[item.nodes[0]!]!;
      return (above >= 0 && layout.item.get(above)) || item;
    }
    case "ArrowUp":
      return nearest(layout, item, item.row - 1);
    case "ArrowDown":
      return nearest(layout, item, item.row + 1);
    case "PageUp":
      return nearest(layout, item, item.row - PAGE);
    case "PageDown":
      return nearest(layout, item, item.row + PAGE);
    case "Home":
      return row[0]!;
    case "End":
      return row.at(-1)!;
  }
}

/** A handle stands before the steps it folds, which are its own; a bundle after the step whose branches it holds. */
function follows(shape: Shape, item: Item, next: Item): boolean {
  if (next.kind === "bundle") return next.nodes[0] === item.nodes.at(-1);
  if (item.kind === "fold") return next.nodes[0] === item.nodes[0];
  return shape.tree.nodes.parent[next.nodes[0]!] === item.nodes.at(-1);
}

function nearest(layout: Layout, item: Item, row: number): Item {
  const items = layout.rows[Math.max(0, Math.min(layout.rows.length - 1, row))]!;
  if (items.includes(item)) return item;
  const middle = item.x + item.width / 2;
  const gap = (other: Item) => Math.abs(other.x + other.width / 2 - middle);
  return items.reduce((best, other) => (gap(other) < gap(best) ? other : best));
}
