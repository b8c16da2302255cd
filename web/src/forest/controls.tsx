/**
 * What is chosen above the drawing: run, iteration, filters, colours, layout.
 *
 * Invariant: the slider moves over iterations that have a forest, and nothing else; marks below it are where the task
 * that is followed was grown.
 */
import { useEffect, useRef } from "preact/hooks";
import { plural } from "../format";
import { RunSelect } from "../run-select";
import { filters, follow, hue, type Hue, layoutKind, type Looked, lookAtIteration, place, runs } from "../state";
import { occurrences } from "../tree/filter";
import { MODES, modesOf } from "../tree/modes";
import { Help, helpOpen } from "./help";
import { opened } from "./open";

export function Controls({ now, list }: { now: Looked; list: number[] }) {
  const kinds = [...new Set(now.entry.trees.map(({ task }) => now.run.tasks[task]?.kind ?? ""))].filter(Boolean).sort();
  const search = useRef<HTMLInputElement>(null);
  const set = (change: Partial<typeof filters.value>) => (filters.value = { ...filters.value, ...change });
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        (event.target as Element).matches("input:not([type=range]):not([type=checkbox]), select, textarea")
      )
        return;
      if (event.key === "/") search.current?.focus();
      else if (event.key === "?") helpOpen.value = true;
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return (
    <div class="controls">
      <Iterations now={now} />
      <div class="filters" role="group" aria-label="Filters">
        <input
          ref={search}
          type="search"
          data-testid="search"
          placeholder="Search tasks, actions, reasoning  ( / )"
          aria-label="Search tasks, actions and reasoning"
          value={filters.value.text}
          onInput={(event) => set({ text: event.currentTarget.value })}
        />
        <label class="check">
          <input
            type="checkbox"
            data-testid="filter-mixed"
            checked={filters.value.mixed}
            onChange={(event) => set({ mixed: event.currentTarget.checked })}
          />{" "}
          mixed outcomes
        </label>
        <label class="check">
          <input
            type="checkbox"
            data-testid="filter-forks"
            checked={filters.value.forks}
            onChange={(event) => set({ forks: event.currentTarget.checked })}
          />{" "}
          with forks
        </label>
        <label>
          <span class="unseen">Task type</span>
          <select
            data-testid="filter-kind"
            value={filters.value.kind}
            onChange={(event) => set({ kind: event.currentTarget.value })}
          >
            <option value="">all types</option>
            {[...new Set([...kinds, filters.value.kind])].filter(Boolean).map((kind) => (
              <option key={kind}>{kind}</option>
            ))}
          </select>
        </label>
        <span class="count" role="status">
          {list.length === now.entry.trees.length
            ? plural(list.length, "tree")
            : `${list.length} of ${plural(now.entry.trees.length, "tree")}`}
        </span>
        <button type="button" class="quiet" onClick={() => (helpOpen.value = true)} aria-label="Keys and symbols">
          ?
        </button>
        <Help />
      </div>
    </div>
  );
}

function Iterations({ now }: { now: Looked }) {
  const { run, entry } = now;
  const all = run.forests.map(({ iteration }) => iteration);
  const at = all.indexOf(entry.iteration);
  const task = now.tree >= 0 ? run.tasks[entry.trees[now.tree]!.task]!.id : place.value.task;
  const grown = follow.value && task !== undefined ? [...occurrences(run, task).keys()] : [];
  const before = grown.findLast((iteration) => iteration < entry.iteration);
  const after = grown.find((iteration) => iteration > entry.iteration);
  const withForests = (runs.value ?? []).filter(({ forests }) => forests.length);
  return (
    <div class="iterations">
      <RunSelect
        testid="forest-run"
        runs={withForests}
        run={run}
        onChoose={(id) => (place.value = { run: id, iteration: entry.iteration, task: follow.value ? task : undefined })}
      />
      <label class="slider">
        <span>
          Iteration <output>{entry.iteration}</output>
        </span>
        <span class="track">
          <input
            type="range"
            data-testid="forest-slider"
            min={0}
            max={Math.max(all.length - 1, 0)}
            step={1}
            value={at}
            disabled={all.length < 2}
            aria-label="Iteration"
            aria-valuetext={`iteration ${entry.iteration}, ${at + 1} of ${all.length} forests`}
            onInput={(event) => lookAtIteration(all[Number(event.currentTarget.value)]!)}
          />
          <span class="ticks" aria-hidden="true">
            {grown.map((iteration) => (
              <i key={iteration} style={{ left: `${(100 * all.indexOf(iteration)) / Math.max(all.length - 1, 1)}%` }} />
            ))}
          </span>
        </span>
      </label>
      <div class="follow">
        <label class="check">
          <input
            type="checkbox"
            data-testid="follow"
            checked={follow.value}
            onChange={(event) => (follow.value = event.currentTarget.checked)}
          />{" "}
          follow this task
        </label>
        {follow.value && (
          <>
            <button
              type="button"
              data-testid="follow-previous"
              disabled={before === undefined}
              onClick={() => lookAtIteration(before!)}
              aria-label="Previous iteration with this task"
            >
              ‹
            </button>
            <button
              type="button"
              data-testid="follow-next"
              disabled={after === undefined}
              onClick={() => lookAtIteration(after!)}
              aria-label="Next iteration with this task"
            >
              ›
            </button>
            <span class="count">grown {grown.length === 1 ? "once" : `${grown.length} times`}</span>
          </>
        )}
      </div>
    </div>
  );
}

interface DrawingProps {
  onExpand: () => void;
  onCollapse: () => void;
  hits: ReadonlySet<number>;
  node: number;
  onSelect: (node: number) => void;
}

export function DrawingControls({ onExpand, onCollapse, hits, node, onSelect }: DrawingProps) {
  const next = () => {
    const all = [...hits].sort((a, b) => a - b);
    onSelect(all.find((hit) => hit > node) ?? all[0]!);
  };
  return (
    <div class="drawing-controls" role="group" aria-label="Drawing">
      <label>
        <span>Colour</span>
        <select data-testid="colour-by" value={hue.value} onChange={(event) => (hue.value = event.currentTarget.value as Hue)}>
          <option value="outcome">outcome</option>
          <option value="advantage">advantage</option>
          <option value="mode">mode</option>
        </select>
      </label>
      <label>
        <span>Layout</span>
        <select
          data-testid="layout"
          value={layoutKind.value}
          onChange={(event) => (layoutKind.value = event.currentTarget.value as "compact" | "steps")}
        >
          <option value="compact">compact</option>
          <option value="steps">by step</option>
        </select>
      </label>
      {layoutKind.value === "compact" && (
        <>
          <button type="button" data-testid="expand-all" onClick={onExpand}>
            Expand all
          </button>
          <button type="button" data-testid="collapse-all" onClick={onCollapse}>
            Collapse all
          </button>
        </>
      )}
      {hits.size > 0 && (
        <button type="button" data-testid="next-hit" onClick={next}>
          Next of {plural(hits.size, "match", "matches")}
        </button>
      )}
      <Legend />
    </div>
  );
}

const LEGENDS: Record<Exclude<Hue, "mode">, [string, string][]> = {
  outcome: [
    ["o4", "won"],
    ["o2", "mixed"],
    ["o0", "lost"],
  ],
  advantage: [
    ["a6", "better"],
    ["a3", "no signal"],
    ["a0", "worse"],
  ],
};

const legend = (hue: Hue): [string, string][] =>
  hue === "mode" ? modesOf(opened.value?.forest).map((mode) => [`m-${mode}`, MODES[mode]!]) : LEGENDS[hue];

function Legend() {
  return (
    <ul class="legend" aria-label="Colours">
      {legend(hue.value).map(([name, words]) => (
        <li key={name} class={name}>
          <i aria-hidden="true" /> {words}
        </li>
      ))}
    </ul>
  );
}
