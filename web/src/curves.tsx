/**
 * Learning curves as small multiples, all runs over each other, and any further column by its name.
 *
 * Invariant: a curve is shown when a run that is shown has a value for it.
 */
import { useState } from "preact/hooks";
import { Chart } from "./charts/chart";
import { CURVES, METRICS } from "./charts/curve-list";
import { described, has, iterationsOf, linesOption } from "./charts/lines";
import { metricOf } from "./charts/metric-of";
import type { Curve, Run } from "./contract";
import { csv } from "./csv";
import { LegendChips } from "./head";
import { lookAtIteration, looked, place, runs, shown } from "./state";

export function Curves() {
  const all = runs.value ?? [];
  const some = shown.value;
  const trained = some.filter((run) => iterationsOf(run).length);
  if (!all.length) return null;
  return (
    <section id="curves" aria-labelledby="curves-title">
      <header class="section-head">
        <h2 id="curves-title">Learning curves</h2>
        <LegendChips />
        {trained.length > 0 && (
          <button type="button" data-testid="csv" onClick={() => csv(trained)} title="Download the numbers of the runs shown">
            CSV
          </button>
        )}
      </header>
      {trained.length > 0 && looked.value && <p class="lead">A click on an iteration opens its trees, where they were kept.</p>}
      {trained.length ? (
        <Multiples runs={trained} />
      ) : (
        <p class="empty">
          {some.length
            ? some.length === 1
              ? "The run has not finished its first iteration."
              : "No run has finished its first iteration."
            : "All runs are switched off: choose one above."}
        </p>
      )}
    </section>
  );
}

function Multiples({ runs: some }: { runs: Run[] }) {
  const [more, setMore] = useState("");
  const curves = CURVES.filter(({ columns }) => columns.some(({ name }) => some.some((run) => has(run, name))));
  const known = new Set(CURVES.flatMap(({ columns, band }) => [...columns.map(({ name }) => name), ...(band ?? [])]));
  const others = [...new Set(some.flatMap((run) => Object.keys(run.metrics)))]
    .filter((name) => name !== "iteration" && !known.has(name))
    .sort();
  const chosen = others.includes(more) ? more : "";
  const metric = metricOf(chosen, METRICS);
  const other: Curve = {
    id: "more",
    title: chosen,
    why: metric?.about ?? "",
    columns: [{ name: chosen, label: "" }],
    band: null,
    share: metric?.unit === "share",
  };
  return (
    <div class="multiples">
      {curves.map((curve) => (
        <Multiple key={curve.id} curve={curve} runs={some} />
      ))}
      {others.length > 0 && (
        <figure class="multiple more">
          <figcaption>
            <h3>
              <label for="more">More</label>
            </h3>
            <select id="more" data-testid="more" value={chosen} onChange={(event) => setMore(event.currentTarget.value)}>
              <option value="">any other column …</option>
              {others.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </figcaption>
          {chosen && <p>{other.why}</p>}
          {chosen && <LineChart curve={other} runs={some} />}
        </figure>
      )}
    </div>
  );
}

function Multiple({ curve, runs: some }: { curve: Curve; runs: Run[] }) {
  return (
    <figure class="multiple">
      <figcaption>
        <h3>{curve.title}</h3>
        <p>{curve.why}</p>
      </figcaption>
      <LineChart curve={curve} runs={some} />
    </figure>
  );
}

function LineChart({ curve, runs: some }: { curve: Curve; runs: Run[] }) {
  const all = runs.value ?? [];
  const names = some.map((run) => run.name).join(", ");
  return (
    <Chart
      testid={`chart-${curve.id}`}
      label={`${curve.title} by iteration. ${described(curve, some)}`}
      height={150}
      option={() => linesOption(curve, some, (run) => all.indexOf(run))}
      deps={[curve.id === "more" ? curve.title : "", all, names]}
      onPick={pick}
    />
  );
}

/** A click on an iteration opens its forest, where there is one. */
function pick(iteration: number) {
  const now = looked.value;
  if (!now?.run.forests.some((entry) => entry.iteration === iteration)) return;
  place.value = { ...place.value, run: now.run.id };
  lookAtIteration(iteration);
  document.getElementById("trees")?.scrollIntoView();
}
