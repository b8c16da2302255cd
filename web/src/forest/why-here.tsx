/**
 * “Why here?”: the forks of a tree in plain sentences.
 *
 * Invariant: a sentence for each fork, in the order in which they were granted; the first `FIRST` at once, all on demand.
 */
import { useMemo, useState } from "preact/hooks";
import type { Forest } from "../contract";
import { line, plural } from "../format";
import type { Shape } from "../tree/shape";
import { sentence, type Why, whys } from "../tree/why";
import { Labels } from "./labels";
import { Outcomes } from "./tree-list";

const FIRST = 20;
const BRANCHES = 8;

export function WhyHere({ shape, forest, onSelect }: { shape: Shape; forest: Forest; onSelect: (node: number) => void }) {
  const labels = useMemo(() => new Labels(shape, forest), [shape, forest]);
  const all = useMemo(() => whys(shape), [shape]);
  const [whole, setWhole] = useState(false);
  return (
    <section class="why" data-testid="why">
      <h4>Why here?</h4>
      {!all.length && (
        <p class="soft">
          This tree has no forks: its {plural(shape.leaves.length, "leaf is an independent try", "leaves are independent tries")}.
        </p>
      )}
      {all.length > 1 && <p class="soft">{plural(all.length, "fork")}, in the order they were granted.</p>}
      <ol>
        {(whole ? all : all.slice(0, FIRST)).map((why) => (
          <Words key={why.fork} why={why} labels={labels} onSelect={onSelect} />
        ))}
      </ol>
      {!whole && all.length > FIRST && (
        <button type="button" onClick={() => setWhole(true)}>
          Show all {all.length}
        </button>
      )}
    </section>
  );
}

/** The forks that a step asked for, or that its branch came from. */
export function ForkWords({
  shape,
  labels,
  node,
  onSelect,
}: {
  shape: Shape;
  labels: Labels;
  node: number;
  onSelect: (node: number) => void;
}) {
  const mine = useMemo(
    () => whys(shape).filter((why) => why.node === node || why.branches.some((branch) => branch.added && branch.node === node)),
    [shape, node],
  );
  if (!mine.length) return null;
  return (
    <section class="why" data-testid="step-forks">
      <h5>Why it forks here</h5>
      <ol>
        {mine.map((why) => (
          <Words key={why.fork} why={why} labels={labels} onSelect={onSelect} />
        ))}
      </ol>
    </section>
  );
}

function Words({ why, labels, onSelect }: { why: Why; labels: Labels; onSelect: (node: number) => void }) {
  const action = (node: number) => line(labels.action(node), 60);
  return (
    <li>
      <button
        type="button"
        class="plain"
        data-testid="why-fork"
        onClick={() => onSelect(why.node >= 0 ? why.node : why.branches.at(-1)!.node)}
      >
        {sentence(labels.shape, why, action)}
      </button>
      <ul>
        {why.branches.slice(0, BRANCHES).map((branch) => (
          <li key={branch.node}>
            <button type="button" class="plain" onClick={() => onSelect(branch.node)}>
              <Outcomes won={branch.won} of={branch.of} />
              <span>
                “{action(branch.node)}” won {branch.won} of {branch.of}
                {branch.added && <small> (added)</small>}
              </span>
            </button>
          </li>
        ))}
        {why.branches.length > BRANCHES && <li class="soft">… {why.branches.length - BRANCHES} more</li>}
      </ul>
    </li>
  );
}
