/**
 * Keys and symbols, in a dialog.
 *
 * Invariant: every key that does something on the page stands here.
 */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Glyph, type GlyphName } from "./glyphs";

export const helpOpen = signal(false);

const KEYS = [
  ["/", "search"],
  ["?", "this help"],
  ["→ ←", "next step or first branch; step before"],
  ["↑ ↓", "row above, row below"],
  ["Page ↑ ↓", "ten rows"],
  ["Home End", "first and last step of the row"],
  ["Enter", "select the step; open or fold a chain, open a branch"],
  ["-", "fold the branches after this step, or the chain it is in"],
  ["Esc", "close the step"],
] as const;

const SYMBOLS: [GlyphName, string][] = [
  ["fork", "a fork: below it, why the agent wanted it"],
  ["explore", "a step in explore mode"],
  ["repeat", "an action done before in the same state"],
  ["bad", "malformed, or impossible here: nothing was carried out"],
  ["won", "the trajectory was won; then its advantage"],
  ["lost", "the trajectory was not won"],
];

export function Help() {
  const box = useRef<HTMLDialogElement>(null);
  const open = helpOpen.value;
  useEffect(() => {
    if (open && !box.current?.open) box.current?.showModal();
    if (!open && box.current?.open) box.current.close();
  }, [open]);
  return (
    <dialog
      ref={box}
      aria-labelledby="help-title"
      onClose={() => (helpOpen.value = false)}
      onClick={(event) => event.target === event.currentTarget && event.currentTarget.close()}
      data-testid="help"
    >
      <h3 id="help-title">Keys and symbols</h3>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
        {SYMBOLS.map(([name, what]) => (
          <div key={name}>
            <dt>
              <svg class={`symbol g-${name}`} width="16" height="16" viewBox="-8 -8 16 16" aria-hidden="true">
                <Glyph name={name} />
              </svg>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p>A thicker line carries more leaves. Lines and boxes have the colour chosen under “Colour”.</p>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
