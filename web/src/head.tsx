/**
 * The head of the page: runs as chips that switch them on and off, ways to the sections, the theme.
 *
 * Invariant: a run's chip has the colour that the run has in every chart, and says its state.
 */
import { hidden, runs } from "./state";
import { runClass, type Theme, theme } from "./theme";

const SECTIONS = [
  ["overview", "Overview"],
  ["curves", "Curves"],
  ["trees", "Trees"],
  ["forks", "Forks"],
  ["costs", "Costs"],
] as const;
const NEED_ROWS = new Set<string>(["forks", "costs"]);

export function Head() {
  const all = runs.value ?? [];
  const trained = all.some((run) => Object.keys(run.metrics).length);
  return (
    <header class="top">
      <div class="bar">
        <h1>
          <svg class="logo" viewBox="0 0 20 20" aria-hidden="true">
            <path d="M2 10h5M7 10c4 0 2-6 6-6h4M7 10c4 0 2 6 6 6h4M7 10h10" />
          </svg>
          {all.length === 1 ? all[0]!.name : "spark-rl"}
        </h1>
        <nav aria-label="Sections">
          {all.length > 0 &&
            SECTIONS.filter(([id]) => trained || !NEED_ROWS.has(id)).map(([id, title]) => (
              <button key={id} type="button" onClick={() => document.getElementById(id)?.scrollIntoView()}>
                {title}
              </button>
            ))}
        </nav>
        <label class="theme">
          <span class="unseen">Theme</span>
          <select
            data-testid="theme"
            value={theme.value}
            onChange={(event) => (theme.value = event.currentTarget.value as Theme)}
          >
            <option value="auto">auto</option>
            <option value="light">light</option>
            <option value="dark">dark</option>
          </select>
        </label>
      </div>
    </header>
  );
}

export function Chips() {
  const all = runs.value ?? [];
  return (
    <ul class="chips" aria-label="Runs">
      {all.map((run, index) => {
        const off = hidden.value.has(run.id);
        return (
          <li key={run.id} class={runClass(index)}>
            <button
              type="button"
              class="chip"
              data-testid="run-chip"
              aria-pressed={!off}
              onClick={() => toggle(run.id)}
              title={off ? "Show in the curves" : "Hide from the curves"}
            >
              <span class="swatch" aria-hidden="true" />
              <b>{run.name}</b>{" "}
              <span>
                {run.recipe}
                {run.seed !== null && `, seed ${run.seed}`}
              </span>{" "}
              <span class={run.finished ? "state done" : "state"}>{run.state}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/** The same switches in little, where the curves are. */
export function LegendChips() {
  const all = runs.value ?? [];
  if (all.length < 2) return null;
  return (
    <ul class="legend-chips" aria-label="Runs in the curves">
      {all.map((run, index) => (
        <li key={run.id} class={runClass(index)}>
          <button
            type="button"
            class="chip"
            data-testid="legend-chip"
            aria-pressed={!hidden.value.has(run.id)}
            onClick={() => toggle(run.id)}
          >
            <span class="swatch" aria-hidden="true" />
            <b>{run.name}</b>
          </button>
        </li>
      ))}
    </ul>
  );
}

function toggle(id: string) {
  const next = new Set(hidden.value);
  if (!next.delete(id)) next.add(id);
  hidden.value = next;
}
