/**
 * Light, dark, or what the system says; and the colours that charts, which are painted, cannot take from the style sheet.
 *
 * Invariant: the style sheet is the one place where colours are defined. `data-theme` on the document overrides the
 * system; charts read the computed values again when `dark` changes.
 */
import { computed, effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
const KEY = "spark-rl-theme";

/** A page opened from disk may have no storage. */
function remembered(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
system.addEventListener("change", () => (systemDark.value = system.matches));

export const theme = signal<Theme>(remembered());
export const dark = computed(() => (theme.value === "auto" ? systemDark.value : theme.value === "dark"));

effect(() => {
  document.documentElement.dataset["theme"] = dark.value ? "dark" : "light";
  try {
    if (theme.value === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme.value);
  } catch {
    // not remembered, then
  }
});

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The value of a custom property, as it is now. */
export const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const RUNS = 8;
/** The colour of the run in this position; they repeat after eight. */
export const runColour = (index: number) => colour(`run-${index % RUNS}`);
/** A class that sets `--c` to it. */
export const runClass = (index: number) => `run-${index % RUNS}`;
