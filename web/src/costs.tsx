/**
 * What the iterations cost: tokens, environment steps, seconds; by iteration for one run, in total for all.
 *
 * Invariant: totals are sums of the rows that are shown, so the cold start and evaluations are not in them.
 */
import { signal } from "@preact/signals";
import { Chart } from "./charts/chart";
import { column, has, iterationsOf } from "./charts/lines";
import { type Part, partsOf, stackOption } from "./charts/stacks";
import type { Run } from "./contract";
import { duration, integer, percent } from "./format";
import { RunSelect } from "./run-select";
import { runs } from "./state";
import { runClass } from "./theme";

const chosen = signal("");
const PHASE = "seconds_";

const TOKENS: Part[] = [
  { name: "generated", label: "generated" },
  { name: "prefilled", label: "prefilled" },
  { name: "trained", label: "trained" },
];
const REUSED: Part[] = [
  { name: "reused", label: "from the cache" },
  { name: "prefilled", label: "computed" },
];
const STEPS: Part[] = [
  { name: "env_steps", label: "made a step of a tree" },
  { name: "replayed", label: "replayed to reach a fork" },
];

export function Costs() {
  const all = (runs.value ?? []).filter((run) => iterationsOf(run).length);
  const run = all.find(({ id }) => id === chosen.value) ?? all[0];
  if (!run) return null;
  const phases = phasesOf(run).map((name) => ({ name, label: name.slice(PHASE.length) }));
  const charts = [
    {
      id: "tokens",
      title: "Tokens",
      why: "Sampled; read by the model; passed through it with gradients.",
      parts: TOKENS,
      unit: "",
    },
    {
      id: "reused",
      title: "Prompt tokens",
      why: "Read from the cache of the tree's own prefixes, or computed anew.",
      parts: REUSED,
      unit: "",
    },
    {
      id: "env",
      title: "Environment steps",
      why: "Steps that made a node, and those taken again to reach an earlier state.",
      parts: STEPS,
      unit: "",
    },
    { id: "seconds", title: "Seconds", why: "Wall-clock time by phase.", parts: phases, unit: " s" },
  ];
  return (
    <section id="costs" aria-labelledby="costs-title">
      <header class="section-head">
        <h2 id="costs-title">Costs</h2>
        <RunSelect testid="costs-run" runs={all} run={run} onChoose={(id) => (chosen.value = id)} />
      </header>
      <div class="multiples">
        {charts
          .filter(({ parts }) => parts.some(({ name }) => has(run, name)))
          .map(({ id, title, why, parts, unit }) => (
            <figure class="multiple" key={id}>
              <figcaption>
                <h3>{title}</h3>
                <p>{why}</p>
                <ul class="legend" aria-label="Parts">
                  {partsOf(run, parts).map(({ name, label }, index) => (
                    <li key={name} class={runClass(index)}>
                      <span class="swatch" aria-hidden="true" /> {label}
                    </li>
                  ))}
                </ul>
              </figcaption>
              <Chart
                testid={`chart-${id}`}
                label={`${title} by iteration, ${run.name}`}
                height={200}
                option={() => stackOption(run, parts, unit)}
                deps={[run]}
              />
            </figure>
          ))}
      </div>
      <Totals all={all} />
    </section>
  );
}

const phasesOf = (run: Run) => Object.keys(run.metrics).filter((name) => name.startsWith(PHASE) && has(run, name));
const total = (run: Run, name: string) => column(run, name).reduce<number>((sum, value) => sum + (value ?? 0), 0);

function Totals({ all }: { all: Run[] }) {
  const prompt = (run: Run) => total(run, "prefilled") + total(run, "reused");
  const lines: [string, (run: Run) => string][] = [
    ["iterations", (run) => integer(iterationsOf(run).length)],
    ["time", (run) => duration(total(run, "seconds"))],
    ["tokens generated", (run) => integer(total(run, "generated"))],
    ["tokens prefilled", (run) => integer(total(run, "prefilled"))],
    [
      "tokens from the cache",
      (run) =>
        `${integer(total(run, "reused"))}${prompt(run) ? ` (${percent(total(run, "reused") / prompt(run))} of prompts)` : ""}`,
    ],
    ["requests preempted", (run) => integer(total(run, "preempted"))],
    ["wait in the engine, all requests", (run) => duration(total(run, "queued") / 1000)],
    ["processes replaced", (run) => integer(total(run, "restarts"))],
    ["tokens trained", (run) => integer(total(run, "trained"))],
    ["environment steps", (run) => integer(total(run, "env_steps"))],
    ["steps replayed", (run) => integer(total(run, "replayed"))],
    ["environment forks", (run) => integer(total(run, "env_forks"))],
    ...[...new Set(all.flatMap(phasesOf))].map((name): [string, (run: Run) => string] => [
      `time, ${name.slice(PHASE.length)}`,
      (run) => duration(total(run, name)),
    ]),
  ];
  return (
    <div class="card totals scroll" tabIndex={0} role="region" aria-label="Totals">
      <table data-testid="totals">
        <thead>
          <tr>
            <th scope="col">all iterations</th>
            {all.map((run) => (
              <th scope="col" class={`n ${runClass((runs.value ?? []).indexOf(run))}`} key={run.id}>
                {all.length > 1 && <span class="swatch" aria-hidden="true" />} {run.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {lines.map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {all.map((run) => (
                <td class="n" key={run.id}>
                  {value(run)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
