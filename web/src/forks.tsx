/**
 * Where forks happen: their share by iteration and interval of steps, and beside it how often the agent explores there.
 *
 * Invariant: a cell without a number is left empty, which is not the same as zero.
 */
import { signal } from "@preact/signals";
import { Chart } from "./charts/chart";
import { heatOption, intervalsOf } from "./charts/heat";
import { RunSelect } from "./run-select";
import { runs } from "./state";

const chosen = signal("");

export function Forks() {
  const all = (runs.value ?? []).filter(
    (run) => intervalsOf(run, "fork_depth").length || intervalsOf(run, "explore_ratio").length,
  );
  const run = all.find(({ id }) => id === chosen.value) ?? all[0];
  if (!run) return null;
  const some = (run.metrics["forks"] ?? []).some((count) => count);
  return (
    <section id="forks" aria-labelledby="forks-title">
      <header class="section-head">
        <h2 id="forks-title">Where forks happen</h2>
        <RunSelect testid="forks-run" runs={all} run={run} onChoose={(id) => (chosen.value = id)} />
      </header>
      <div class="pair">
        <figure class="multiple">
          <figcaption>
            <h3>Forks by step</h3>
            <p>
              Of an iteration's forks, the share that was opened in each interval of steps. Dark at the bottom: the budget goes to
              the first steps.
            </p>
          </figcaption>
          {some ? (
            <Chart
              testid="chart-fork-depth"
              label={`Share of forks by iteration and step, ${run.name}`}
              height={230}
              option={() => heatOption(run, "fork_depth")}
              deps={[run]}
            />
          ) : (
            <p class="empty">This run has no forks.</p>
          )}
        </figure>
        <figure class="multiple">
          <figcaption>
            <h3>Exploring by step</h3>
            <p>
              Of the steps in each interval, the share in explore mode. A healthy agent explores where it does not know, mostly
              early.
            </p>
          </figcaption>
          <Chart
            testid="chart-explore-depth"
            label={`Share of exploring steps by iteration and step, ${run.name}`}
            height={230}
            option={() => heatOption(run, "explore_ratio")}
            deps={[run]}
          />
        </figure>
      </div>
    </section>
  );
}
