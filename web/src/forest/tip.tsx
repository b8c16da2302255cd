/**
 * A few words on the step under the pointer or the keyboard's focus, and the same words for those who listen.
 *
 * Invariant: nothing is only in a tooltip; the panel says it all. It never covers what it speaks of.
 */
import { line, plural, signed } from "../format";
import type { Item } from "../tree/layout";
import { namedMode } from "../tree/modes";
import { fault, isLeaf, REPEATED, SUCCESS } from "../tree/shape";
import type { Labels } from "./labels";

const WIDE = 320;
const FAULTS = { malformed: "malformed answer", inadmissible: "not possible here" } as const;

/** What a screen reader says of an item that is not a chain, which says what is written in it. */
export function spoken(item: Item, labels: Labels): string {
  const { shape } = labels;
  const node = item.nodes[0]!;
  if (item.kind === "bundle") return `branches after step ${shape.depth[node]}, folded: ${labels.bundle(node)}`;
  if (item.kind === "fold") return `fold ${plural(item.nodes.length, "step")}`;
  const end = isLeaf(shape, node) ? (shape.tree.nodes.flags[node]! & SUCCESS ? "won" : "not won") : "";
  return [`step ${shape.depth[node]}: ${line(labels.action(node), 80)}`, ...facts(labels, node), end].filter(Boolean).join(", ");
}

function facts(labels: Labels, node: number): string[] {
  const { mode, flags } = labels.shape.tree.nodes;
  const wrong = fault(flags[node]!);
  return [namedMode(mode[node]), wrong ? FAULTS[wrong] : "", flags[node]! & REPEATED ? "repeated" : ""].filter(Boolean);
}

interface Props {
  item: Item;
  labels: Labels;
  /** Below the item, in the frame. */
  x: number;
  y: number;
  width: number;
  height: number;
  row: number;
}

export function Tip({ item, labels, x, y, width, height, row }: Props) {
  const { shape } = labels;
  const { advantage } = shape.tree.nodes;
  const last = item.nodes.at(-1)!;
  const value = advantage[last] ?? null;
  const up = y + 110 > height;
  const place = {
    left: `${Math.max(4, Math.min(x, width - WIDE - 8))}px`,
    ...(up ? { bottom: `calc(100% - ${y - row - 2}px)` } : { top: `${y + 4}px` }),
  };
  const steps = item.nodes.slice(0, 8);
  return (
    <div class="tip" role="tooltip" style={place}>
      {item.kind === "bundle" ? (
        <b>What follows step {shape.depth[last]}: Enter or a click opens it</b>
      ) : item.kind === "step" ? (
        <>
          <b>
            {shape.depth[last]} {line(labels.action(last), 120)}
          </b>
          {labels.reasoning(last) && <q>{line(labels.reasoning(last), 160)}</q>}
        </>
      ) : (
        <ol start={shape.depth[steps[0]!]}>
          {steps.map((node) => (
            <li key={node} value={shape.depth[node]}>
              {line(labels.action(node), 60)} <small>{facts(labels, node).join(", ")}</small>
            </li>
          ))}
          {item.nodes.length > steps.length && <li class="plain">… {item.nodes.length - steps.length} more</li>}
        </ol>
      )}
      <span class="facts">
        {[
          ...(item.kind === "step" ? facts(labels, last) : []),
          `${shape.won[last]} of ${plural(shape.below[last]!, "leaf", "leaves")} won`,
          value === null ? "" : `advantage ${signed(value)}`,
        ]
          .filter(Boolean)
          .join(" · ")}
      </span>
    </div>
  );
}
