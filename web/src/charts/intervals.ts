/**
 * Shares with their intervals: a row a level, a point a moment, hollow before and full after.
 *
 * Invariant: what is drawn is the interval that was recorded; nothing is computed here.
 */
import type { Evaluation } from "../contract";
import { percent } from "../format";
import { colour, runColour } from "../theme";
import { axisLine, type Option, tooltip, valueAxis } from "./chart";

export interface IntervalRow {
  name: string;
  run: number;
  /** A result a moment, in order. */
  points: (Evaluation | null)[];
}

interface Api {
  value: (dimension: number) => number;
  coord: (point: number[]) => number[];
}

export function intervalsOption(rows: IntervalRow[]): Option {
  const data = rows.flatMap(({ points }, row) =>
    points.flatMap((point, moment) => (point ? [[point.success, row, point.low, point.high, moment]] : [])),
  );
  const highest = Math.max(0.1, ...data.map((point) => point[3]!));
  const most = Math.max(...rows.map(({ points }) => points.length));
  const draw = (_: unknown, api: Api) => {
    const [success, row, low, high, moment] = [0, 1, 2, 3, 4].map((dimension) => api.value(dimension)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    const paint = runColour(rows[row]!.run);
    const shift = most > 1 ? (moment - (most - 1) / 2) * 10 : 0;
    const [x, y] = api.coord([success, row]).map((value, i) => value + (i ? shift : 0)) as [number, number];
    const [from, to] = [api.coord([low, row])[0]!, api.coord([high, row])[0]!];
    const last = moment === most - 1;
    const line = { stroke: paint, lineWidth: last ? 2 : 1.3, opacity: last ? 1 : 0.75 };
    const bar = (x1: number, y1: number, x2: number, y2: number) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: line });
    return {
      type: "group",
      children: [
        bar(from, y, to, y),
        bar(from, y - 3, from, y + 3),
        bar(to, y - 3, to, y + 3),
        {
          type: "circle",
          shape: { cx: x, cy: y, r: 4 },
          style: { fill: last ? paint : colour("raised"), stroke: paint, lineWidth: 1.6 },
        },
      ],
    };
  };
  return {
    grid: { left: 4, right: 16, top: 4, bottom: 4, containLabel: true },
    xAxis: valueAxis({
      min: 0,
      max: Math.min(1, Math.ceil(highest * 10) / 10),
      axisLabel: { color: colour("soft"), formatter: (value: number) => percent(value) },
    }),
    yAxis: {
      type: "category",
      inverse: true,
      data: rows.map(({ name }) => name),
      axisLine: axisLine(),
      axisTick: { show: false },
      axisLabel: { color: colour("soft") },
    },
    tooltip: tooltip({
      trigger: "item",
      formatter: ({ value }: { value: [number, number, number, number] }) =>
        `${rows[value[1]]!.name}\n${percent(value[0], 1)}  (${percent(value[2])} to ${percent(value[3])})`,
    }),
    series: [{ type: "custom", renderItem: draw, data, encode: { x: [0, 2, 3], y: 1 } }],
  };
}
