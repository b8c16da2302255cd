/**
 * The forest explorer: choose an iteration and a tree, look at its drawing, read its steps.
 *
 * Invariant: a forest is not touched before the explorer comes into view; then the index shows at once, and the drawing
 * when the forest is open.
 */
import { useEffect, useMemo, useState } from "preact/hooks";
import { useSeen } from "../charts/chart";
import type { Forest } from "../contract";
import { plural } from "../format";
import { filters, linked, looked, lookAtIteration, lookAtTree, runs, type Looked } from "../state";
import { chosen, stepsWith } from "../tree/filter";
import { folded, showing, unfolded } from "../tree/folds";
import { shapeOf, type Shape } from "../tree/shape";
import { Controls, DrawingControls } from "./controls";
import { Drawing } from "./drawing";
import { opened, useForest } from "./open";
import { Panel } from "./panel";
import { TreeList } from "./tree-list";

export function Explorer() {
  const [box, seen] = useSeen();
  const now = looked.value;
  return (
    <section id="trees" aria-labelledby="trees-title" ref={box}>
      <header class="section-head">
        <h2 id="trees-title">Rollout trees</h2>
        <p class="aside">
          A tree is one task. Steps run from left to right; where it forks, the environment was copied and several continuations
          were tried.
        </p>
      </header>
      {now ? (
        <Open now={now} seen={seen || linked} />
      ) : (
        <p class="empty">
          {(runs.value ?? []).length > 1 ? "No run has kept a forest." : "The run has kept no forest yet."} Forests lie in its
          folder “forests”; the recipe's keep.forests says how many are kept.
        </p>
      )}
    </section>
  );
}

function Open({ now, seen }: { now: Looked; seen: boolean }) {
  const { run, entry } = now;
  const problem = useForest(run, entry.iteration, entry, seen && !entry.missing);
  const held = opened.value;
  const forest = held?.run === run.id && held.iteration === entry.iteration ? held.forest : undefined;
  const list = chosen(run, entry.trees, filters.value, forest);
  const lost = entry.missing ?? problem;
  return (
    <div class="explorer">
      <Controls now={now} list={list} />
      <TreeList now={now} list={list} />
      {lost ? (
        <p class="empty missing" data-testid="missing">
          The forest of iteration {entry.iteration} cannot be opened. {lost} <Nearest now={now} />
        </p>
      ) : now.tree < 0 ? (
        <p class="empty missing">
          {entry.trees.length
            ? `This task was not grown in iteration ${entry.iteration}: the buttons beside “follow” lead to where it was.`
            : "This forest has no trees."}
        </p>
      ) : forest?.trees[now.tree] ? (
        <OpenTree key={`${run.id}/${entry.iteration}/${now.tree}`} now={now} forest={forest} />
      ) : (
        <p class="empty missing" data-testid="drawing" aria-busy="true">
          Opening the forest …
        </p>
      )}
    </div>
  );
}

/** The way to the nearest forest that can be opened. */
function Nearest({ now: { run, entry } }: { now: Looked }) {
  const whole = run.forests.filter(({ missing, iteration }) => !missing && iteration !== entry.iteration);
  if (!whole.length) return null;
  const { iteration } = whole.reduce((best, other) =>
    Math.abs(other.iteration - entry.iteration) < Math.abs(best.iteration - entry.iteration) ? other : best,
  );
  return (
    <button type="button" data-testid="nearest" onClick={() => lookAtIteration(iteration)}>
      Open iteration {iteration} instead
    </button>
  );
}

function OpenTree({ now, forest }: { now: Looked; forest: Forest }) {
  const tree = forest.trees[now.tree]!;
  const shape = useMemo(() => shapeOf(tree), [tree]);
  const node = now.node < shape.size ? now.node : -1;
  const [folds, setFolds] = useState(() => showing(shape, folded(shape), node));
  const select = (to: number) => lookAtTree(now.tree, to);
  useEffect(() => setFolds((was) => showing(shape, was, node)), [node, shape]);
  const hits = useMemo(() => stepsWith(forest, now.tree, filters.value.text), [forest, now.tree, filters.value.text]);
  return (
    <>
      <div class="middle">
        <TreeHead shape={shape} forest={forest} />
        <DrawingControls
          onExpand={() => setFolds(unfolded(shape))}
          onCollapse={() => setFolds(folded(shape))}
          hits={hits}
          node={node}
          onSelect={select}
        />
        <Drawing shape={shape} forest={forest} node={node} onSelect={select} folds={folds} setFolds={setFolds} hits={hits} />
      </div>
      <Panel shape={shape} forest={forest} node={node} onSelect={select} folds={folds} setFolds={setFolds} />
    </>
  );
}

function TreeHead({ shape, forest }: { shape: Shape; forest: Forest }) {
  const { tree } = shape;
  const task = forest.tasks[tree.task]!;
  const won = shape.roots.reduce((sum, root) => sum + shape.won[root]!, 0);
  const leaves = shape.leaves.length;
  return (
    <header class="tree-head">
      <h3>{task.instruction || task.id}</h3>
      <p>
        <span class="kind">{task.kind}</span> {task.id} · {plural(shape.size, "step")} · {plural(leaves, "leaf", "leaves")}
        {tree.cap > 0 && ` of at most ${tree.cap}`} · <b>{won} won</b> · {plural(tree.forks.length, "fork")}
        {tree.horizon > 0 && ` · horizon ${tree.horizon}`}
      </p>
    </header>
  );
}
