/**
 * What is drawn of a tree: lines, steps, chains, forks, ends; of the rows that are given, and of nothing else.
 *
 * Invariant: each item is a `treeitem` that says all that its look says; lines and marks are for the eye alone. A line
 * is drawn when any part of it is in the rows.
 */
import { signed } from "../format";
import type { Hue } from "../state";
import { BOX, type Edge, type Item, type Kind, type Layout, type Mark } from "../tree/layout";
import { childrenOf, DONE, fault, isLeaf, SUCCESS } from "../tree/shape";
import { Glyph, type GlyphName } from "./glyphs";
import { hueClass } from "./hues";
import { BAR, fitted, type Labels, textWidth } from "./labels";
import { spoken } from "./tip";

interface Props {
  layout: Layout;
  labels: Labels;
  hue: Hue;
  hits: ReadonlySet<number>;
  selected: number;
  current: Item;
  size: { width: number; height: number; top: number; row: number };
  /** First row, end, and the row of the active item, which is always drawn. */
  rows: [number, number, number];
  onUse: (item: Item) => void;
  onPoint: (item: Item | null) => void;
  /** A fork was clicked. */
  onFork: (node: number) => void;
}

export function Canvas(props: Props) {
  const { layout, labels, hue, size, rows, onFork } = props;
  const { shape } = labels;
  const [first, end, active] = rows;
  const inView = (from: number, to: number) => from < end && to >= first;
  const y = (row: number) => size.top + row * size.row + size.row / 2;
  const edges = layout.edges.filter(({ row, toRow }) => inView(row, toRow));
  const marks = layout.marks.filter(({ row }) => inView(row, row + 1));
  const drawn = [
    ...(active < first || active >= end ? [active] : []),
    ...Array.from({ length: end - first }, (_, i) => first + i),
  ];
  return (
    <svg class="canvas" width={size.width} height={size.height} role="none">
      <g aria-hidden="true">
        {edges.map((edge) => (
          <path
            key={`${edge.node}-${edge.from}-${edge.to}`}
            class={`edge ${hueClass(shape, edge.node, hue)}`}
            stroke-width={thickness(shape.below[edge.node]!, layout.kind)}
            d={line(edge, y(edge.row), y(edge.toRow))}
          />
        ))}
        {inView(0, 0) && <circle class="start" cx={12} cy={y(0)} r={5} />}
        {marks.map((mark) => (
          <ForkMark
            key={mark.node}
            mark={mark}
            labels={labels}
            y={y(mark.row)}
            row={size.row}
            small={layout.kind === "steps"}
            onClick={() => onFork(mark.node)}
          />
        ))}
        {drawn.map(
          (row) =>
            isLeaf(shape, layout.ends[row]!) && (
              <End
                key={row}
                labels={labels}
                leaf={layout.ends[row]!}
                item={layout.rows[row]!.at(-1)!}
                y={y(row)}
                long={layout.kind === "steps"}
                onUse={props.onUse}
              />
            ),
        )}
      </g>
      {drawn.flatMap((row) =>
        layout.rows[row]!.map((item) => <Drawn key={`${item.kind}-${item.nodes[0]}`} {...props} item={item} y={y(row)} />),
      )}
    </svg>
  );
}

/** More leaves, a thicker line: 1 is 1.6, 8 is 5.2, 1,000 is 13; by step half of what is added. */
const thickness = (leaves: number, kind: Kind) => 1.6 + (kind === "steps" ? 0.6 : 1.15) * Math.log2(leaves);

function line({ from, x, to }: Edge, y: number, end: number): string {
  if (y === end) return `M${from} ${y}H${to}`;
  const bend = Math.min(10, end - y);
  return `M${from} ${y}H${x - 4}Q${x} ${y} ${x} ${y + 4}V${end - bend}Q${x} ${end} ${x + bend} ${end}H${to}`;
}

function ForkMark({
  mark,
  labels,
  y,
  row,
  small,
  onClick,
}: {
  mark: Mark;
  labels: Labels;
  y: number;
  row: number;
  small: boolean;
  onClick: () => void;
}) {
  const { shape } = labels;
  const point = shape.points.get(mark.node);
  if (!point) return <circle class="branch" cx={mark.x} cy={y} r={2.5} />;
  const askers = point.forks.map((fork) => shape.tree.forks[fork]![0]);
  const asker = askers.find((node) => node !== null);
  const why = asker === undefined || asker === null ? "" : labels.reasoning(asker);
  const room = mark.x - mark.left - 24;
  const words = room > 50 && why ? fitted(why, room) : "";
  return (
    <g class="fork" data-testid="fork" data-node={mark.node} onClick={onClick}>
      {why && <title>{why}</title>}
      <circle cx={mark.x} cy={y} r={small ? 4.5 : 8} />
      {small ? <circle class="core" cx={mark.x} cy={y} r={1.5} /> : <Glyph name="fork" x={mark.x} y={y} />}
      {words && (
        <text class="words" x={mark.x - 12} y={y + row / 2 + 8}>
          {words}
        </text>
      )}
    </g>
  );
}

function End({
  labels,
  leaf,
  item,
  y,
  long,
  onUse,
}: {
  labels: Labels;
  leaf: number;
  item: Item;
  y: number;
  long: boolean;
  onUse: (item: Item) => void;
}) {
  const { shape } = labels;
  const { flags, advantage } = shape.tree.nodes;
  const won = !!(flags[leaf]! & SUCCESS);
  const value = advantage[leaf] ?? null;
  const at = item.x + item.width + 14;
  const after = value === null ? "" : signed(value);
  const rest = [`${shape.depth[leaf]} steps`, flags[leaf]! & DONE ? "" : "out of time"].filter(Boolean).join(", ");
  return (
    <g class={`end ${won ? "o4" : "o0"}`} onClick={() => onUse(item)}>
      <Glyph name={won ? "won" : "lost"} x={at} y={y} />
      <text x={at + 11} y={y + 4} class="value">
        {after}
      </text>
      <text x={at + (after ? 18 + textWidth(after) : 11)} y={y + 4} class="rest">
        {long ? labels.short(leaf) : rest}
      </text>
    </g>
  );
}

function Drawn({ item, y, layout, labels, hue, hits, selected, current, onUse, onPoint }: Props & { item: Item; y: number }) {
  const { shape } = labels;
  const node = item.nodes[0]!;
  const step = item.kind === "step";
  const chosen = step && node === selected;
  const is: Record<string, boolean> = {
    hit: (step || item.kind === "chain") && item.nodes.some((other) => hits.has(other)),
    chosen,
    current: item === current,
    bad: step && !!fault(shape.tree.nodes.flags[node]!),
    exploring: step && shape.tree.nodes.mode[node] === "e",
  };
  const name = ["item", item.kind, hueClass(shape, item.nodes.at(-1)!, hue), ...Object.keys(is).filter((each) => is[each])].join(
    " ",
  );
  const last = item.nodes.at(-1)!;
  const siblings = childrenOf(shape, shape.tree.nodes.parent[node]!);
  const folded = layout.rows[item.row]!.some((next) => next.kind === "bundle" && next.nodes[0] === last);
  return (
    <g
      id={`item-${item.kind}-${node}`}
      class={name}
      data-testid={item.kind}
      data-node={node}
      role="treeitem"
      aria-level={shape.depth[node]}
      aria-setsize={siblings.length}
      aria-posinset={siblings.indexOf(node) + 1}
      aria-selected={chosen}
      aria-expanded={step ? (isLeaf(shape, last) ? undefined : !folded) : item.kind === "fold"}
      aria-label={item.kind === "chain" ? undefined : spoken(item, labels)}
      transform={`translate(${item.x} ${y})`}
      onClick={() => onUse(item)}
      onMouseEnter={() => onPoint(item)}
      onMouseLeave={() => onPoint(null)}
    >
      {layout.kind === "steps" ? <Dot labels={labels} node={node} /> : <Box item={item} labels={labels} />}
    </g>
  );
}

const MARKS: Partial<Record<GlyphName, string>> = { explore: "exploring", bad: "invalid", repeat: "repeated" };

function Dot({ labels, node }: { labels: Labels; node: number }) {
  const marks = labels.marks(node);
  return (
    <>
      <rect class="reach" x={-4} y={-11} width={18} height={22} />
      <circle class="halo" cx={5} cy={0} r={9} />
      <g transform="translate(5 0)">
        <Glyph name={marks.includes("explore") ? "explore" : "think"} />
        {marks.includes("bad") && <path class="cross" d="M-4.5-4.5 4.5 4.5M4.5-4.5-4.5 4.5" />}
        {marks.includes("repeat") && <circle class="again" r={7.5} />}
      </g>
    </>
  );
}

/** A folded branch: how many leaves, and the share of them that was won. */
function Bundle({ item, labels }: { item: Item; labels: Labels }) {
  const node = item.nodes[0]!;
  const { below, won } = labels.shape;
  const start = item.width - BAR - 12;
  const part = (BAR * won[node]!) / below[node]!;
  return (
    <>
      <rect class="box under" x={3} y={3 - BOX / 2} width={item.width} height={BOX} rx={5} />
      <rect class="box" y={-BOX / 2} width={item.width} height={BOX} rx={5} />
      <text x={10} y={4}>
        {labels.bundle(node)}
      </text>
      <rect class="bar o4" x={start} y={-4} width={part} height={8} />
      <rect class="bar o0" x={start + part} y={-4} width={BAR - part} height={8} />
    </>
  );
}

function Box({ item, labels }: { item: Item; labels: Labels }) {
  if (item.kind === "fold")
    return (
      <>
        <rect class="box" y={-BOX / 2} width={item.width} height={BOX} rx={5} />
        <Glyph name="fold" x={item.width / 2} />
      </>
    );
  if (item.kind === "bundle") return <Bundle item={item} labels={labels} />;
  const chain = item.kind === "chain" ? labels.chain(item.nodes) : null;
  const marks = chain ? [] : labels.marks(item.nodes[0]!);
  let x = 8;
  return (
    <>
      <rect class="box" y={-BOX / 2} width={item.width} height={BOX} rx={chain ? BOX / 2 : 5} />
      {marks.map((mark) => (
        <Glyph key={mark} name={mark} x={(x += 15) - 9} />
      ))}
      <text x={x} y={4}>
        {chain ? chain.words : labels.short(item.nodes[0]!)}
      </text>
      {chain?.marks.map(([mark, count], index) => {
        if (!index) x += textWidth(chain.words) + 3;
        const at = x + 7;
        x += 18 + textWidth(` ${count}`);
        return (
          <g key={mark}>
            <Glyph name={mark} x={at} />
            <text x={at + 8} y={4}>
              {count}
              <tspan class="said"> {MARKS[mark]}, </tspan>
            </text>
          </g>
        );
      })}
    </>
  );
}
