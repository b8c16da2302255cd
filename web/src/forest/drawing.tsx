/**
 * The drawing of one tree: a window on its rows, of which only those in view exist.
 *
 * Invariants: the drawing is one stop of the tab key and keeps the active step in view and in the document; what is
 * selected changes only by Enter, Space or a click. Texts are text nodes.
 *
 * The layout is computed for the whole tree, once for each change of it; scrolling chooses rows.
 */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Forest } from "../contract";
import { hue, layoutKind } from "../state";
import { calm } from "../theme";
import { chainOf, type Folds, toggleBranches, toggleChain } from "../tree/folds";
import { type Item, type Layout, layOut, ORIGIN, ROW, rowsInView } from "../tree/layout";
import { type Key, move } from "../tree/moves";
import type { Shape } from "../tree/shape";
import { Canvas } from "./canvas";
import { Labels } from "./labels";
import { Strip } from "./strip";
import { Tip } from "./tip";

/** A tree that is open: what it shows, and what is done with it. */
export interface TreeProps {
  shape: Shape;
  forest: Forest;
  node: number;
  onSelect: (node: number) => void;
  folds: Folds;
  setFolds: (folds: Folds) => void;
}

const KEYS = new Set(["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);
const NOTHING: Folds = { open: new Set(), closed: new Set() };
const TOP = 8;
export const HEADER = 26;

export function Drawing({ shape, forest, node, onSelect, folds, setFolds, hits }: TreeProps & { hits: ReadonlySet<number> }) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, left: 0, width: 800, height: 500 });
  const [active, setActive] = useState(node >= 0 ? node : shape.roots[0]!);
  const [tip, setTip] = useState<Item | null>(null);
  const kind = layoutKind.value;
  const labels = useMemo(() => new Labels(shape, forest), [shape, forest]);
  const deepest = useMemo(() => shape.depth.reduce((a, b) => Math.max(a, b), 1), [shape]);
  // As wide as the window allows, so that a tree of a usual horizon is seen whole.
  const column = Math.max(18, Math.min(56, Math.floor((view.width - 200) / (deepest + 1))));
  const layout = useMemo(
    () =>
      layOut(shape, {
        kind,
        ...(kind === "compact" ? folds : NOTHING),
        column,
        box: (nodes) => labels.box(nodes),
        bundle: (step) => labels.bundleWidth(step),
      }),
    [shape, kind, folds, kind === "steps" ? column : 0, labels],
  );
  const row = ROW[kind];
  const header = kind === "steps" ? HEADER : 0;
  const width = Math.max(layout.width + 210, view.width);
  const height = layout.rows.length * row + 2 * TOP;

  const look = () => {
    const { scrollTop: top = 0, scrollLeft: left = 0, clientWidth: wide = 800, clientHeight: high = 500 } = box.current ?? {};
    setView((was) =>
      was.top === top && was.left === left && was.width === wide && was.height === high
        ? was
        : { top, left, width: wide, height: high },
    );
  };
  useLayoutEffect(() => {
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);

  const show = (item: Item) => {
    const element = box.current;
    if (!element) return;
    const y = TOP + item.row * row;
    const { scrollTop, clientHeight, scrollLeft, clientWidth } = element;
    const top =
      y < scrollTop + row
        ? y - 2 * row
        : y + 2 * row > scrollTop + clientHeight - header
          ? y + 3 * row - clientHeight + header
          : scrollTop;
    const left =
      item.x < scrollLeft + 40
        ? item.x - 60
        : item.x + item.width > scrollLeft + clientWidth - 60
          ? item.x + item.width + 120 - clientWidth
          : scrollLeft;
    element.scrollTo({ top, left, behavior: calm.matches ? "instant" : "auto" });
    look();
  };
  useEffect(() => {
    if (node < 0) return;
    setActive(node);
    const item = layout.item.get(node);
    if (item) show(item);
  }, [node, kind]);

  const at = find(layout, shape, active);
  const [handle, setHandle] = useState(""); // a handle and a bundle have no step of their own
  const current = (handle && layout.rows[at.row]!.find((item) => item.kind === handle && item.nodes.includes(active))) || at;

  const press = (event: KeyboardEvent) => {
    if (KEYS.has(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const next = move(shape, layout, current, event.key as Key);
      setActive(next.nodes[0]!);
      setHandle(next.kind === "fold" || next.kind === "bundle" ? next.kind : "");
      setTip(next);
      show(next);
    } else if (event.key === "Enter" || event.key === " ") use(current);
    else if (event.key === "-" && kind === "compact") fold(current);
    else if (event.key === "Escape") {
      setTip(null);
      if (node >= 0) onSelect(-1);
    } else return;
    event.preventDefault();
  };
  /** Fold what follows a step that forks, else the chain it is in. */
  const fold = (item: Item) => {
    const last = item.nodes.at(-1)!;
    if (item.kind === "step" && shape.children[last]!.length > 1 && !folds.closed.has(last))
      return setFolds(toggleBranches(folds, last));
    const chain = chainOf(shape, last);
    if (item.kind === "step" && folds.open.has(chain)) setFolds(toggleChain(folds, chain));
  };
  const use = (item: Item) => {
    const first = item.nodes[0]!;
    setActive(first);
    setHandle("");
    setTip(null);
    if (item.kind === "step") return onSelect(first);
    setFolds(item.kind === "bundle" ? toggleBranches(folds, first) : toggleChain(folds, first));
  };

  /** To a row of the strip, and to where something is drawn in it. */
  const jump = (to: number) => {
    const item = layout.rows[Math.max(0, Math.min(layout.rows.length - 1, Math.floor(to)))]![0]!;
    box.current?.scrollTo({ top: to * row - view.height / 2, left: item.x - 60 });
  };
  const [first, end] = rowsInView(view.top - TOP, view.height, row, layout.rows.length);
  return (
    <div class="drawing-frame">
      <div
        ref={box}
        class={`drawing ${kind}`}
        data-testid="drawing"
        data-iteration={forest.iteration}
        role="tree"
        aria-label={`Rollout tree: ${shape.leaves.length} leaves, time runs from left to right`}
        tabIndex={0}
        aria-activedescendant={`item-${current.kind}-${current.nodes[0]}`}
        onScroll={look}
        onKeyDown={press}
        onFocus={() => box.current?.matches(":focus-visible") && setTip(current)}
        onBlur={() => setTip(null)}
        onMouseLeave={() => setTip(null)}
      >
        {kind === "steps" && <Steps column={column} deepest={deepest} width={width} />}
        <Canvas
          layout={layout}
          labels={labels}
          hue={hue.value}
          hits={hits}
          selected={node}
          current={current}
          size={{ width, height, top: TOP, row }}
          rows={[first, end, at.row]}
          onUse={use}
          onPoint={setTip}
          onFork={(step) => kind === "compact" && step >= 0 && setFolds(toggleBranches(folds, step))}
        />
      </div>
      <Strip shape={shape} layout={layout} view={{ top: view.top - TOP, height: view.height }} row={row} onJump={jump} />
      {tip && (
        <Tip
          item={tip}
          labels={labels}
          x={tip.x - view.left}
          y={TOP + header + (tip.row + 1) * row - view.top}
          width={view.width}
          height={view.height}
          row={row}
        />
      )}
    </div>
  );
}

/** What shows a step: itself, or the nearest before it that is not folded away. */
function find(layout: Layout, shape: Shape, node: number): Item {
  let at = node;
  while (at >= 0 && !layout.item.has(at)) at = shape.tree.nodes.parent[at] ?? -1;
  return (layout.item.get(at) ?? layout.rows[0]![0])!;
}

/** Step numbers, which stay when the rows scroll. */
function Steps({ column, deepest, width }: { column: number; deepest: number; width: number }) {
  const each = column < 24 ? 5 : 1;
  return (
    <svg class="steps-head" width={width} height={HEADER} role="none" aria-hidden="true">
      {Array.from({ length: deepest }, (_, i) => i + 1)
        .filter((step) => step === 1 || step % each === 0)
        .map((step) => (
          <text key={step} x={ORIGIN + step * column} y={17}>
            {step}
          </text>
        ))}
    </svg>
  );
}
