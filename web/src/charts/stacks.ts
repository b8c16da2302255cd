/**
 * Amounts by iteration, stacked: what adds up to a whole.
 *
 * Invariant: parts of a stack are of one unit and do not overlap.
 */
import type { Run } from "../contract";
import { short } from "../format";
import { colour, runColour } from "../theme";
import { iterationCategories, type Option, tooltip, valueAxis } from "./chart";
import { column, has, iterationsOf } from "./lines";

export interface Part {
  name: string;
  label: string;
}

export function stackOption(run: Run, parts: Part[], unit: string): Option {
  const at = iterationsOf(run);
  return {
    xAxis: iterationCategories(at),
    yAxis: valueAxis({ axisLabel: { color: colour("soft"), formatter: (value: number) => short(value) } }),
    tooltip: tooltip({
      axisPointer: { type: "shadow", shadowStyle: { opacity: 0.1 } },
      formatter: (items: { axisValue: string; seriesName: string; value: number | null }[]) =>
        [
          `iteration ${items[0]?.axisValue}`,
          ...items.filter(({ value }) => value !== null).map(({ seriesName, value }) => `${seriesName}  ${short(value!)}${unit}`),
        ].join("\n"),
    }),
    series: partsOf(run, parts).map(({ name, label }, index) => ({
      type: "bar",
      stack: "all",
      name: label,
      data: column(run, name),
      barCategoryGap: at.length > 60 ? "0%" : "20%",
      itemStyle: { color: runColour(index) },
      emphasis: { disabled: true },
    })),
  };
}

/** Those with a value, in order: the position of each is its colour. */
export const partsOf = (run: Run, parts: Part[]) => parts.filter(({ name }) => has(run, name));
