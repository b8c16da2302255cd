/**
 * The symbols of the drawing, as paths around (0, 0): fonts do not all have them.
 *
 * Invariant: each differs from the others by its form, not by its colour alone.
 */
export type GlyphName = "fork" | "explore" | "think" | "repeat" | "bad" | "won" | "lost" | "fold";

const PATHS: Record<GlyphName, string> = {
  fork: "M-5 0h3c3 0 2-4 7-4M-2 0c3 0 2 4 7 4",
  explore: "M0-5.2 5.2 0 0 5.2-5.2 0Z",
  think: "M4.2 0a4.2 4.2 0 1 1-8.4 0a4.2 4.2 0 1 1 8.4 0Z",
  repeat: "M3.6-3a4.7 4.7 0 1 0 1 4M4.6-5.4v3.2h-3.4",
  bad: "M-4-4 4 4M4-4-4 4",
  won: "M-4.5 0.5-1.5 3.5 4.5-3.5",
  lost: "M-3.5-3.5 3.5 3.5M3.5-3.5-3.5 3.5",
  fold: "M2-4-2 0 2 4",
};

export function Glyph({ name, x = 0, y = 0 }: { name: GlyphName; x?: number; y?: number }) {
  return <path class={`glyph g-${name}`} d={PATHS[name]} transform={x || y ? `translate(${x} ${y})` : undefined} />;
}
