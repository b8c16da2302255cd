/**
 * A chart: ECharts in a box.
 *
 * Invariants: a chart costs nothing until it is about to be seen; it is drawn anew when its option, the theme or its
 * width changes; nothing of it needs what the content security policy forbids (painted on a canvas, tooltips as painted
 * text: ECharts' other tooltips bring style attributes).
 *
 * Only what is used is imported, so that the bundle holds no more.
 */
import { BarChart, CustomChart, HeatmapChart, LineChart } from "echarts/charts";
import { AriaComponent, GridComponent, TooltipComponent, VisualMapComponent } from "echarts/components";
import { type ECharts, type EChartsCoreOption, init, use } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import { useEffect, useRef, useState } from "preact/hooks";
import { calm, colour, dark } from "../theme";

use([
  BarChart,
  CustomChart,
  HeatmapChart,
  LineChart,
  AriaComponent,
  GridComponent,
  TooltipComponent,
  VisualMapComponent,
  CanvasRenderer,
]);

export type Option = EChartsCoreOption;

/** Whether an element is, or was, in the window, close below it, or above it: a link may lead past it. */
export function useSeen() {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || !box.current) return;
    const watcher = new IntersectionObserver((found) => found.some(({ isIntersecting }) => isIntersecting) && setSeen(true), {
      rootMargin: "100000px 0px 200px",
    });
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, [seen]);
  return [box, seen] as const;
}

export interface ChartProps {
  testid: string;
  /** What it shows, for those who cannot see it. */
  label: string;
  height: number;
  /** Made when the chart is seen, with the colours of the theme. */
  option: () => Option;
  /** Values that `option` depends on. */
  deps: readonly unknown[];
  onPick?: (x: number) => void;
}

export function Chart({ testid, label, height, option, deps, onPick }: ChartProps) {
  const [box, seen] = useSeen();
  const chart = useRef<ECharts | undefined>(undefined);
  const pick = useRef(onPick);
  pick.current = onPick;
  const isDark = dark.value;

  useEffect(() => {
    if (!seen || !box.current) return;
    const made = init(box.current);
    chart.current = made;
    const resized = new ResizeObserver(() => made.resize());
    resized.observe(box.current);
    made.getZr().on("click", ({ offsetX, offsetY }: { offsetX: number; offsetY: number }) => {
      if (!pick.current || !made.containPixel("grid", [offsetX, offsetY])) return;
      const [x] = made.convertFromPixel("grid", [offsetX, offsetY]) as number[];
      if (x !== undefined) pick.current(Math.round(x));
    });
    return () => {
      resized.disconnect();
      made.dispose();
      chart.current = undefined;
    };
  }, [seen]);

  useEffect(() => {
    chart.current?.setOption({ ...base(label), ...option() }, { notMerge: true });
  }, [seen, isDark, label, ...deps]);

  return <div ref={box} class="chart" data-testid={testid} role="img" aria-label={label} style={{ height: `${height}px` }} />;
}

/** What all charts share. */
function base(label: string): Option {
  return {
    animation: !calm.matches,
    animationDuration: 250,
    aria: { enabled: true, label: { description: label } },
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colour("soft"), fontSize: 11 },
    grid: { left: 4, right: 12, top: 12, bottom: 4, containLabel: true },
    tooltip: tooltip(),
  };
}

export function tooltip(more: object = {}) {
  return {
    trigger: "axis",
    renderMode: "richText",
    confine: true,
    backgroundColor: colour("raised"),
    borderColor: colour("line"),
    borderWidth: 1,
    padding: [6, 8],
    textStyle: { color: colour("ink"), fontSize: 11, lineHeight: 15 },
    axisPointer: { type: "line", lineStyle: { color: colour("faint"), type: "solid" } },
    ...more,
  };
}

export const axisLine = () => ({ lineStyle: { color: colour("line") } });

/** Iterations, as numbers: some six of them, round ones. */
export function iterationAxis(from: number, to: number, more: object = {}) {
  const step = roundStep(from, to);
  return {
    type: "value",
    min: Math.floor(from / step) * step,
    max: Math.max(to, from + 1),
    interval: step,
    axisLine: axisLine(),
    axisTick: { show: false },
    splitLine: { show: false },
    axisLabel: { color: colour("soft"), showMinLabel: from % step === 0, showMaxLabel: to % step === 0 },
    ...more,
  };
}

/** The same, for bars and cells, which stand beside each other. */
export function iterationCategories(at: readonly number[]) {
  const step = roundStep(at[0] ?? 0, at.at(-1) ?? 0, 12);
  return {
    type: "category",
    data: at.map(String),
    axisLine: axisLine(),
    axisTick: { show: false },
    axisLabel: { color: colour("soft"), interval: (_: number, value: string) => Number(value) % step === 0 },
  };
}

function roundStep(from: number, to: number, most = 6): number {
  const rough = Math.max(1, (to - from) / most);
  const unit = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough)!;
}

export function valueAxis(more: object = {}) {
  return {
    type: "value",
    splitNumber: 3,
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: colour("grid") } },
    axisLabel: { color: colour("soft") },
    ...more,
  };
}
