/**
 * Words of the drawing and the room they take.
 *
 * Invariant: what is written in a box fits it; a text's width is measured once.
 */
import type { Forest } from "../contract";
import { line } from "../format";
import { fault, REPEATED, type Shape } from "../tree/shape";
import type { GlyphName } from "./glyphs";

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const PADDING = 16;
const GLYPH = 15;
const LONGEST = 34;
export const BAR = 60;

const known = new Map<string, number>();
let pen: CanvasRenderingContext2D | null = null;

export function textWidth(text: string): number {
  let width = known.get(text);
  if (width === undefined) {
    if (!pen) {
      pen = document.createElement("canvas").getContext("2d");
      if (pen) pen.font = FONT;
    }
    width = pen ? pen.measureText(text).width : text.length * 7;
    known.set(text, width);
  }
  return width;
}

/** As much of a text as fits a width. */
export function fitted(text: string, width: number): string {
  const flat = line(text, 160);
  if (textWidth(flat) <= width) return flat;
  let most = flat.length;
  while (most > 1 && textWidth(`${flat.slice(0, most)}…`) > width) most--;
  return most > 3 ? `${flat.slice(0, most).trimEnd()}…` : "";
}

export class Labels {
  constructor(
    readonly shape: Shape,
    readonly forest: Forest,
  ) {}

  /** A step's action, whole. */
  action(node: number): string {
    return this.forest.strings[this.shape.tree.nodes.action[node]!]!.trim() || "(no action)";
  }

  reasoning(node: number): string {
    return this.forest.strings[this.shape.tree.nodes.reasoning[node]!]!.trim();
  }

  short(node: number): string {
    return line(this.action(node), LONGEST);
  }

  /** What is drawn before a step's words. */
  marks(node: number): GlyphName[] {
    const { mode, flags } = this.shape.tree.nodes;
    const marks: GlyphName[] = [];
    if (mode[node] === "e") marks.push("explore");
    if (fault(flags[node]!)) marks.push("bad");
    if (flags[node]! & REPEATED) marks.push("repeat");
    return marks;
  }

  /** The words of a folded chain, and how many of its steps are marked by what. */
  chain(nodes: number[]): { words: string; marks: [GlyphName, number][] } {
    const count = new Map<GlyphName, number>();
    for (const node of nodes) for (const mark of this.marks(node)) count.set(mark, (count.get(mark) ?? 0) + 1);
    return { words: nodes.length === 1 ? "… 1 step …" : `… ${nodes.length} steps …`, marks: [...count].sort() };
  }

  /** The words of a folded branch. */
  bundle(node: number): string {
    return `${this.shape.below[node]} leaves, ${this.shape.won[node]} won`;
  }

  /** Room for its words and a bar of its outcomes. */
  bundleWidth(node: number): number {
    return Math.ceil(textWidth(this.bundle(node))) + BAR + 2 * PADDING;
  }

  /** Width of the box of a step, or of a folded chain (which has two steps or more). */
  box(nodes: number[]): number {
    if (nodes.length === 1) return Math.ceil(textWidth(this.short(nodes[0]!))) + GLYPH * this.marks(nodes[0]!).length + PADDING;
    const { words, marks } = this.chain(nodes);
    return (
      Math.ceil(textWidth(words)) +
      marks.reduce((sum, [, count]) => sum + GLYPH + Math.ceil(textWidth(` ${count}`)) + 3, 0) +
      PADDING
    );
  }
}
