/**
 * Curves over the iterations, one line a run and column, with a band where there is an interval.
 *
 * Invariant: colour is the run's everywhere; several columns of one chart differ by dash, a run's line by its colour.
 * A value that is missing leaves a gap, but for columns that are measured now and then, whose points are joined.
 */
import type { Curve, Run } from "../contract";
import { percent, short } from "../format";
import { colour, runColour } from "../theme";
import { iterationAxis, type Option, tooltip, valueAxis } from "./chart";

const DASHES = ["solid", "dashed", "dotted"] as const;

export const column = (run: Run, name: string): (number | null)[] => run.metrics[name] ?? [];
export const iterationsOf = (run: Run): number[] => column(run, "iteration").map((value, index) => value ?? index + 1);
export const has = (run: Run, name: string): boolean => column(run, name).some((value) => value !== null);

/** First and last iteration of any of the runs. */
export function span(runs: readonly Run[]): [number, number] {
  const all = runs.flatMap(iterationsOf);
  return all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
}

export function linesOption(curve: Curve, runs: readonly Run[], order: (run: Run) => number): Option {
  const [from, to] = span(runs);
  const write = (value: number) => (curve.share ? percent(value, 1) : short(value));
  const several = runs.length > 1;
  const series = runs.flatMap((run) => {
    const at = iterationsOf(run);
    const paint = runColour(order(run));
    const lines = curve.columns
      .filter(({ name }) => has(run, name))
      .map(({ name, label }, index) => {
        const points = at.map((x, i) => [x, column(run, name)[i] ?? null]);
        const known = points.filter(([, y]) => y !== null);
        const sparse = known.length < points.length;
        return {
          type: "line",
          name: [several ? run.name : "", label || (several ? "" : curve.title)].filter(Boolean).join(", "),
          data: sparse ? known : points,
          showSymbol: known.length < 2 || (sparse && known.length <= 40),
          symbol: "circle",
          symbolSize: 5,
          lineStyle: { width: 1.8, type: DASHES[index % DASHES.length] },
          itemStyle: { color: paint },
          emphasis: { disabled: true },
          sampling: "lttb",
          z: 3,
        };
      });
    return [...band(curve, run, at, paint), ...lines];
  });
  const most = Math.max(
    0,
    ...runs.flatMap((run) =>
      [...curve.columns.map(({ name }) => name), ...(curve.band ?? [])].flatMap((name) =>
        column(run, name).map((value) => value ?? 0),
      ),
    ),
  );
  const digits = most < 0.03 ? 1 : 0;
  const top = curve.share
    ? {
        min: 0,
        ...(most > 0.5 ? { max: 1, interval: 0.25 } : {}),
        axisLabel: { color: colour("soft"), formatter: (value: number) => percent(value, digits) },
      }
    : { scale: true, axisLabel: { color: colour("soft"), formatter: short } };
  return {
    xAxis: iterationAxis(from, to),
    yAxis: valueAxis(top),
    tooltip: tooltip({
      formatter: (items: { seriesName: string; value: [number, number | null]; seriesType: string }[]) =>
        [
          `iteration ${items[0]?.value[0]}`,
          ...items
            .filter(({ value, seriesType }) => seriesType === "line" && value[1] !== null)
            .map(({ seriesName, value }) => `${seriesName}  ${write(value[1]!)}`),
        ].join("\n"),
    }),
    series,
  };
}

/** For those who cannot see the lines: where each begins and ends. */
export function described(curve: Curve, runs: readonly Run[]): string {
  const write = (value: number) => (curve.share ? percent(value, 1) : short(value));
  const lines = runs.flatMap((run) =>
    curve.columns.map(({ name, label }) => {
      const known = column(run, name).filter((value) => value !== null);
      return known.length
        ? `${[run.name, label].filter(Boolean).join(", ")}: from ${write(known[0]!)} to ${write(known.at(-1)!)}`
        : "";
    }),
  );
  return `${lines.filter(Boolean).join("; ")}.`;
}

/** The interval around a line: one polygon, there and back. */
function band(curve: Curve, run: Run, at: number[], paint: string): object[] {
  if (!curve.band || !has(run, curve.band[0])) return [];
  const [low, high] = curve.band.map((name) => column(run, name));
  const points = at.flatMap((x, i) =>
    typeof low![i] === "number" && typeof high![i] === "number" ? [[x, low![i], high![i]] as number[]] : [],
  );
  return [
    {
      type: "custom",
      silent: true,
      clip: true,
      tooltip: { show: false },
      data: points.length
        ? [[points[0]![0], points[0]![1]], ...points.slice(1).map(([x, y]) => [x, y]), ...points.map(([x, , y]) => [x, y])]
        : [],
      encode: { x: 0, y: 1 },
      itemStyle: { color: paint },
      renderItem: (params: { dataIndex: number }, api: { coord: (point: number[]) => number[] }) =>
        params.dataIndex
          ? null
          : {
              type: "polygon",
              shape: {
                points: [
                  ...points.map(([x, y]) => api.coord([x!, y!])),
                  ...points.map(([x, , y]) => api.coord([x!, y!])).reverse(),
                ],
              },
              style: { fill: paint, stroke: paint, lineWidth: points.length > 1 ? 0 : 3, opacity: 0.15 },
            },
    },
  ];
}
