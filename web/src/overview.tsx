/**
 * A run at a glance: what it reached, with intervals; by type and settings on demand.
 *
 * Invariant: every share stands with its fraction and its 95 % interval. Runs are told apart by name, colour repeats it.
 */
import { Chart } from "./charts/chart";
import { intervalsOption, type IntervalRow } from "./charts/intervals";
import type { Evaluation, Run } from "./contract";
import { percent } from "./format";
import { Chips } from "./head";
import { Settings } from "./settings";
import { runs } from "./state";
import { runClass } from "./theme";

const ORDER = ["before", "after"];

export function Overview() {
  const all = runs.value ?? [];
  const moments = [...new Set(all.flatMap((run) => Object.keys(run.evaluations)))].sort((a, b) => rank(a) - rank(b));
  const rows = all.flatMap((run, index) => levelsOf(run).map((level) => ({ run, index, level })));
  return (
    <section id="overview" aria-labelledby="overview-title">
      <header class="section-head">
        <h2 id="overview-title">Overview</h2>
      </header>
      <Chips />
      <Notes all={all} />
      {rows.length > 0 ? (
        <div class="overview">
          <div class="card">
            <h3>Success on test tasks</h3>
            <div class="scroll" tabIndex={0} role="region" aria-label="Success on test tasks">
              <Table rows={rows} moments={moments} several={all.length > 1} />
            </div>
          </div>
          <div class="card">
            <h3>{moments.join(" → ")}, with 95 % intervals</h3>
            <Chart
              testid="chart-intervals"
              label="Success on test tasks by level, with 95 % intervals"
              height={44 + rows.length * 30}
              option={() => intervalsOption(rows.map((row) => intervals(row, moments, all.length > 1)))}
              deps={[all]}
            />
          </div>
        </div>
      ) : (
        <p class="empty">
          No evaluation yet: {all.length === 1 ? "the run's" : "a run's"} test tasks are played before and after training.
        </p>
      )}
      <div class="folds">
        {rows.length > 0 && <Kinds all={all} moments={moments} />}
        <Settings all={all} />
      </div>
    </section>
  );
}

interface Row {
  run: Run;
  index: number;
  level: string;
}

const rank = (moment: string) => (ORDER.includes(moment) ? ORDER.indexOf(moment) : ORDER.length);
const levelsOf = (run: Run) => [...new Set(Object.values(run.evaluations).flatMap((levels) => Object.keys(levels)))].sort();

function intervals({ run, index, level }: Row, moments: string[], several: boolean): IntervalRow {
  return {
    name: several ? `${run.name}  ${level}` : level,
    run: index,
    points: moments.map((moment) => run.evaluations[moment]?.[level] ?? null),
  };
}

function Notes({ all }: { all: Run[] }) {
  const notes = all.flatMap((run, index) => run.notes.map((note) => ({ run, index, note })));
  if (!notes.length) return null;
  return (
    <ul class="notes" aria-label="Notes" data-testid="notes">
      {notes.map(({ run, index, note }, i) => (
        <li key={i} class={`note ${runClass(index)}`}>
          {all.length > 1 && (
            <>
              <span class="swatch" aria-hidden="true" /> <b>{run.name}</b>
            </>
          )}
          <span>{note}</span>
        </li>
      ))}
    </ul>
  );
}

function Table({ rows, moments, several }: { rows: Row[]; moments: string[]; several: boolean }) {
  return (
    <table data-testid="evaluations">
      <thead>
        <tr>
          {several && <th scope="col">run</th>}
          <th scope="col">level</th>
          {moments.map((moment) => (
            <th scope="col" class="n" key={moment} colSpan={2}>
              {moment}
            </th>
          ))}
          {moments.length > 1 && (
            <th scope="col" class="n">
              gain
            </th>
          )}
        </tr>
      </thead>
      <tbody>
        {rows.map(({ run, index, level }, i) => {
          const found = moments.map((moment) => run.evaluations[moment]?.[level]);
          const [first, last] = [found[0], found.at(-1)];
          return (
            <tr key={`${run.id}/${level}`} class={runClass(index)}>
              {several && (
                <td class="run">
                  {rows[i - 1]?.run !== run && (
                    <>
                      <span class="swatch" aria-hidden="true" /> {run.name}
                    </>
                  )}
                </td>
              )}
              <th scope="row">{level}</th>
              {found.map((result, at) => (
                <Cells key={at} result={result} />
              ))}
              {moments.length > 1 && (
                <td class="n gain">{first && last && first !== last ? gain(last.success - first.success) : ""}</td>
              )}
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

const gain = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

function Cells({ result }: { result: Evaluation | undefined }) {
  if (!result) return <td class="n" colSpan={2} />;
  return (
    <>
      <td class="n">
        <b>{result.success.toFixed(3)}</b>{" "}
        <span class="interval">
          {result.low.toFixed(2)} to {result.high.toFixed(2)}
        </span>
      </td>
      <td class="n interval">
        {result.wins}/{result.tasks}
      </td>
    </>
  );
}

function Kinds({ all, moments }: { all: Run[]; moments: string[] }) {
  const columns = all.flatMap((run) => levelsOf(run).map((level) => ({ run, level })));
  const results = columns.map(({ run, level }) => moments.map((moment) => run.evaluations[moment]?.[level]?.kinds));
  const kinds = [...new Set(results.flat().flatMap((found) => Object.keys(found ?? {})))].sort();
  if (!kinds.length) return null;
  const share = (found: { wins: number; tasks: number } | undefined) => found && `${found.wins}/${found.tasks}`;
  return (
    <details data-testid="kinds">
      <summary>By task type</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label="By task type">
        <table>
          <thead>
            <tr>
              <th scope="col">type, {moments.join(" → ")}</th>
              {columns.map(({ run, level }) => (
                <th scope="col" class="n" key={`${run.id}/${level}`}>
                  {all.length > 1 && `${run.name} `}
                  {level}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {kinds.map((kind) => (
              <tr key={kind}>
                <th scope="row">{kind}</th>
                {results.map((found, i) => {
                  const values = found.map((each) => each?.[kind]);
                  return (
                    <td
                      class="n"
                      key={i}
                      title={values.map((value) => (value ? percent(value.wins / value.tasks) : "–")).join(" → ")}
                    >
                      {values.map(share).filter(Boolean).join(" → ")}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
