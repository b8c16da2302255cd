/**
 * All rows of a drawing in a strip beside it: the share of each that was won, and which rows are in view.
 *
 * Invariant: its height is the drawing's; a click goes to the place. For the eye and the pointer alone: the keyboard has
 * its own ways.
 */
import { useMemo } from "preact/hooks";
import type { Layout } from "../tree/layout";
import type { Shape } from "../tree/shape";

const WIDTH = 14;

interface Props {
  shape: Shape;
  view: { top: number; height: number };
  layout: Layout;
  row: number;
  onJump: (row: number) => void;
}

export function Strip({ shape, layout, view, row, onJump }: Props) {
  const count = layout.rows.length;
  const runs = useMemo(() => outcomes(shape, layout), [shape, layout]);
  const jump = (event: MouseEvent & { currentTarget: SVGSVGElement }) => {
    const { top, height } = event.currentTarget.getBoundingClientRect();
    onJump(((event.clientY - top) / height) * count);
  };
  return (
    <svg
      class="strip"
      width={WIDTH}
      viewBox={`0 0 ${WIDTH} ${count}`}
      preserveAspectRatio="none"
      aria-hidden="true"
      onClick={jump}
      onMouseMove={(event) => event.buttons === 1 && jump(event)}
    >
      {runs.map(({ from, to, share }) => (
        <g key={from}>
          <rect class="o4" x={0} y={from} width={WIDTH * share} height={to - from} />
          <rect class="o0" x={WIDTH * share} y={from} width={WIDTH * (1 - share)} height={to - from} />
        </g>
      ))}
      <rect class="window" x={0} y={view.top / row} width={WIDTH} height={view.height / row} />
    </svg>
  );
}

/** Neighbouring rows of one share as one. */
function outcomes(shape: Shape, layout: Layout): { from: number; to: number; share: number }[] {
  const runs: { from: number; to: number; share: number }[] = [];
  layout.ends.forEach((node, row) => {
    const share = shape.won[node]! / shape.below[node]!;
    const last = runs.at(-1);
    if (last?.share === share) last.to = row + 1;
    else runs.push({ from: row, to: row + 1, share });
  });
  return runs;
}
