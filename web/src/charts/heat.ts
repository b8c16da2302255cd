/**
 * A share by iteration and interval of steps.
 *
 * Invariant: intervals are those that the metrics name (`NAME_1_5`, `NAME_6_10`, ..., `NAME_0`), in order of steps,
 * later ones above.
 */
import type { Run } from "../contract";
import { percent } from "../format";
import { colour } from "../theme";
import { axisLine, iterationCategories, type Option, tooltip } from "./chart";
import { column, has, iterationsOf } from "./lines";

/** [column, words], first steps first. */
export function intervalsOf(run: Run, name: string): [string, string][] {
  return Object.keys(run.metrics)
    .flatMap((key) => {
      const found = new RegExp(`^${name}_(\\d+)(?:_(\\d+))?$`).exec(key);
      return found && has(run, key)
        ? [{ key, from: Number(found[1]), words: found[2] ? `${found[1]} to ${found[2]}` : "new roots" }]
        : [];
    })
    .sort((a, b) => a.from - b.from)
    .map(({ key, words }) => [key, words]);
}

export function heatOption(run: Run, name: string): Option {
  const intervals = intervalsOf(run, name);
  const at = iterationsOf(run);
  const data = intervals.flatMap(([key], row) =>
    at.flatMap((_, i) => (typeof column(run, key)[i] === "number" ? [[i, row, column(run, key)[i]!]] : [])),
  );
  const most = Math.max(0.01, ...data.map(([, , value]) => value!));
  return {
    grid: { left: 4, right: 70, top: 8, bottom: 4, containLabel: true },
    xAxis: iterationCategories(at),
    yAxis: {
      type: "category",
      axisTick: { show: false },
      axisLine: axisLine(),
      axisLabel: { color: colour("soft") },
      data: intervals.map(([, words]) => words),
    },
    tooltip: tooltip({
      trigger: "item",
      formatter: ({ value }: { value: [number, number, number] }) =>
        `iteration ${at[value[0]]}, steps ${intervals[value[1]]![1]}\n${percent(value[2], 1)}`.replace(
          "steps new roots",
          "new roots",
        ),
    }),
    visualMap: {
      min: 0,
      max: most,
      calculable: false,
      orient: "vertical",
      right: 0,
      top: "middle",
      itemWidth: 10,
      itemHeight: 120,
      text: [percent(most), "0 %"],
      textStyle: { color: colour("soft"), fontSize: 11 },
      inRange: { color: [colour("heat-0"), colour("heat-1"), colour("heat-2")] },
    },
    series: [
      {
        type: "heatmap",
        data,
        progressive: 0,
        itemStyle: { borderColor: colour("raised"), borderWidth: at.length > 80 ? 0 : 1 },
        emphasis: { itemStyle: { borderColor: colour("ink") } },
      },
    ],
  };
}
