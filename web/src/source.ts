/**
 * Where the page's values come from: the elements of a report, or the live server.
 *
 * Invariants: a forest is opened only when asked for, and each once while it is among the `KEPT` looked at last; what a
 * live run says anew replaces what was shown, but for what has not changed.
 *
 * A document without an element `runs` is live: lists are fetched, and fetched again when the server says so.
 */
import type { Forest, Run } from "./contract";

const KEPT = 8;

export interface Source {
  live: boolean;
  runs(): Promise<Run[]>;
  forest(run: string, iteration: number): Promise<Forest>;
}

const element = (id: string) => document.getElementById(id);

const report: Source = {
  live: false,
  runs: async () => JSON.parse(element("runs")?.textContent ?? "[]") as Run[],
  forest: async (run, iteration) => {
    const packed = element(`forest-${run}-${iteration}`)?.textContent;
    if (!packed) throw new Error("It is not in this file.");
    const bytes = Uint8Array.from(atob(packed.trim()), (char) => char.charCodeAt(0));
    const opened = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return (await new Response(opened).json()) as Forest;
  },
};

async function fetched<T>(address: string): Promise<T> {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 300) || `The server answered ${answer.status}.`);
  return (await answer.json()) as T;
}

const server: Source = {
  live: true,
  runs: () => fetched("api/runs"),
  forest: (run, iteration) => fetched(`api/runs/${encodeURIComponent(run)}/forests/${iteration}`),
};

export const source: Source = element("runs") ? report : server;

const opened = new Map<string, Promise<Forest>>();

/** A forest, opened or remembered. */
export function openForest(run: string, iteration: number): Promise<Forest> {
  const key = `${run}/${iteration}`;
  const known = opened.get(key) ?? source.forest(run, iteration);
  opened.delete(key); // the newest is last
  opened.set(key, known);
  known.catch(() => opened.delete(key));
  for (const old of opened.keys()) if (opened.size > KEPT) opened.delete(old);
  return known;
}

/** Forget a run's forests whose entries are not what they were: it was resumed, and grew them anew. */
function forget(before: Run | undefined, after: Run) {
  for (const entry of before?.forests ?? []) {
    const now = after.forests.find((other) => other.iteration === entry.iteration);
    if (JSON.stringify(now) !== JSON.stringify(entry)) opened.delete(`${after.id}/${entry.iteration}`);
  }
}

/** Calls `set` with the runs whenever the server has news of them; `connected` says whether it can be heard. */
export function listen(get: () => Run[], set: (runs: Run[]) => void, connected: (is: boolean) => void) {
  const list = async () => {
    const runs = await source.runs();
    for (const run of runs)
      forget(
        get().find((known) => known.id === run.id),
        run,
      );
    set(runs);
  };
  const events = new EventSource("events");
  let opens = 0;
  events.onopen = () => {
    connected(true);
    if (opens++) list().catch(() => undefined); // what happened in between was not heard
  };
  events.onerror = () => connected(false);
  events.addEventListener("changed", async (event) => {
    const id = String((event as MessageEvent).data);
    try {
      if (!get().some((run) => run.id === id)) return await list();
      const run = await fetched<Run>(`api/runs/${encodeURIComponent(id)}`);
      forget(
        get().find((known) => known.id === id),
        run,
      );
      set(get().map((known) => (known.id === id ? run : known)));
    } catch {
      // It is gone or half written: the next event tells.
    }
  });
}
