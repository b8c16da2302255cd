/**
 * What the page shows and what is chosen on it: signals, and their copy in the address.
 *
 * Invariants: `place` names what is looked at by names that stay (run, iteration, task), so that it survives a reload and
 * new iterations of a live run; whatever does not exist (any more) is resolved to something that does, in `looked`.
 */
import { computed, effect, signal } from "@preact/signals";
import type { ForestEntry, Run } from "./contract";
import { listen, source } from "./source";
import { type Filters, mostTelling, NONE } from "./tree/filter";

export const runs = signal<Run[] | null>(null);
export const problem = signal("");
export const connected = signal(true);
/** Runs whose chips are switched off. */
export const hidden = signal<ReadonlySet<string>>(new Set());
export const shown = computed(() => (runs.value ?? []).filter((run) => !hidden.value.has(run.id)));

export interface Place {
  run?: string | undefined;
  iteration?: number | undefined;
  task?: string | undefined;
  /** Which tree of that task, where a forest has several. */
  nth?: number | undefined;
  node?: number | undefined;
}

export const place = signal<Place>({});
export const filters = signal<Filters>(NONE);
export const follow = signal(false);
export type Hue = "outcome" | "advantage" | "mode";
export const hue = signal<Hue>("outcome");
export const layoutKind = signal<"compact" | "steps">("compact");

export interface Looked {
  run: Run;
  entry: ForestEntry;
  /** Index of the tree in its forest; -1 when the task that is asked for was not grown in this iteration. */
  tree: number;
  node: number;
}

/** The forest that is open although nothing was chosen: a live run's newer ones do not push it away. */
export const held = signal<Place>({});

/** What `place` comes to; null while there is no run with a forest. */
export const looked = computed<Looked | null>(() => {
  const all = runs.value ?? [];
  const wanted =
    place.value.iteration === undefined ? { ...held.value, ...place.value, iteration: held.value.iteration } : place.value;
  const run = all.find(({ id }) => id === wanted.run) ?? all.find(({ forests }) => forests.length) ?? all[0];
  if (!run?.forests.length) return null;
  const entry =
    run.forests.find(({ iteration }) => iteration === wanted.iteration) ??
    run.forests.findLast(({ missing }) => !missing) ??
    run.forests.at(-1)!;
  let tree = -1;
  if (wanted.task !== undefined) {
    const same = entry.trees.flatMap(({ task }, index) => (run.tasks[task]?.id === wanted.task ? [index] : []));
    tree = same[wanted.nth ?? 0] ?? same[0] ?? -1;
  }
  const found = tree >= 0;
  if (!found && !(follow.value && wanted.task !== undefined)) tree = entry.trees.length ? mostTelling(entry.trees) : -1;
  return { run, entry, tree, node: found || wanted.task === undefined ? (wanted.node ?? -1) : -1 };
});

/** Look at a tree of the forest that is open. */
export function lookAtTree(index: number, node = -1) {
  const { run, entry } = looked.value!;
  const id = run.tasks[entry.trees[index]!.task]!.id;
  const nth = entry.trees.slice(0, index).filter(({ task }) => run.tasks[task]!.id === id).length;
  place.value = { run: run.id, iteration: entry.iteration, task: id, nth: nth || undefined, node: node < 0 ? undefined : node };
}

/** Look at another iteration; the task stays when it is followed. */
export function lookAtIteration(iteration: number) {
  const now = looked.value!;
  const task = now.tree >= 0 ? now.run.tasks[now.entry.trees[now.tree]!.task]!.id : place.value.task;
  place.value = { run: now.run.id, iteration, task: follow.value ? task : undefined };
}

function read(hash: string): Place {
  const values = new URLSearchParams(hash.slice(1));
  const number = (name: string) => (/^\d+$/.test(values.get(name) ?? "") ? Number(values.get(name)) : undefined);
  return {
    run: values.get("run") ?? undefined,
    iteration: number("iteration"),
    task: values.get("task") ?? undefined,
    nth: number("nth"),
    node: number("node"),
  };
}

function write(value: Place): string {
  const values = new URLSearchParams();
  for (const [name, entry] of Object.entries(value)) if (entry !== undefined) values.set(name, String(entry));
  const text = values.toString();
  return text && `#${text}`;
}

/** Whether the address names something to look at, so that the page opens there. */
export const linked = location.hash.length > 1;

export async function start() {
  place.value = read(location.hash);
  addEventListener("hashchange", () => (place.value = read(location.hash)));
  effect(() => {
    const names = (runs.value ?? []).map(({ name }) => name);
    document.title = names.length ? `${names.length > 3 ? `${names.length} runs` : names.join(", ")} · spark-rl` : "spark-rl";
  });
  effect(() => {
    const hash = write(place.value);
    if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
  });
  try {
    runs.value = await source.runs();
  } catch (error) {
    problem.value = error instanceof Error ? error.message : String(error);
  }
  if (source.live)
    listen(
      () => runs.value ?? [],
      (all) => ((runs.value = all), (problem.value = "")),
      (is) => (connected.value = is),
    );
}
