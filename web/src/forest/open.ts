/**
 * The forest that is looked at, opened, and what the explorer derives from it.
 *
 * Invariant: what was shown stays until what replaces it is there; an answer that comes too late is dropped.
 */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import type { Forest, Run } from "../contract";
import { openForest } from "../source";
import { held } from "../state";

export interface Opened {
  run: string;
  iteration: number;
  forest: Forest;
}

/** The forest that is open, for the list of trees, which searches its steps. */
export const opened = signal<Opened | null>(null);

/** Why the forest cannot be shown, or empty. `entry` changes when a live run grew the forest anew. */
export function useForest(run: Run, iteration: number, entry: unknown, wanted: boolean): string {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (!wanted) return;
    let late = false;
    setProblem("");
    openForest(run.id, iteration).then(
      (forest) => {
        if (late) return;
        opened.value = { run: run.id, iteration, forest };
        held.value = { run: run.id, iteration };
      },
      (error: unknown) => late || setProblem(error instanceof Error ? error.message : String(error)),
    );
    return () => {
      late = true;
    };
  }, [run.id, iteration, JSON.stringify(entry), wanted]);
  return problem;
}
