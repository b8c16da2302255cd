/**
 * The metrics of runs as a table to download.
 *
 * Invariant: a row an iteration, a column a metric with its own name; of several runs, `run` comes first. Pure but for
 * `csv`, which hands the table to the browser.
 */
import type { Run } from "./contract";

export function table(runs: readonly Run[]): string {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))];
  const several = runs.length > 1;
  const rows = runs.flatMap((run) => {
    const count = Math.max(0, ...Object.values(run.metrics).map((values) => values.length));
    return Array.from({ length: count }, (_, i) => [
      ...(several ? [run.name] : []),
      ...names.map((name) => run.metrics[name]?.[i] ?? ""),
    ]);
  });
  return [[...(several ? ["run"] : []), ...names], ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value: string | number): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(runs: readonly Run[]) {
  const address = URL.createObjectURL(new Blob([table(runs)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = runs.length === 1 ? `${runs[0]!.name.replaceAll("/", "-")}-metrics.csv` : "metrics.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
