/**
 * All that is known of the selected step: what was seen, thought, done and answered, its numbers, and its siblings.
 *
 * Invariant: it shows what was recorded and says where something was not. On a phone it is a sheet over the page, which
 * Esc and its button close.
 */
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { number, percent, plural, signed } from "../format";
import { chainOf, toggleChain } from "../tree/folds";
import { MODES } from "../tree/modes";
import {
  ADMISSIBLE,
  DONE,
  isLeaf,
  pathTo,
  REPEATED,
  SHORTENED,
  type Shape,
  siblingsOf,
  SUCCESS,
  WELL_FORMED,
} from "../tree/shape";
import type { TreeProps } from "./drawing";
import { advantageClass, hueClass } from "./hues";
import { Labels } from "./labels";
import { Outcomes } from "./tree-list";
import { ForkWords, WhyHere } from "./why-here";

export function Panel(props: TreeProps) {
  const labels = useMemo(() => new Labels(props.shape, props.forest), [props.shape, props.forest]);
  const { node, onSelect } = props;
  return (
    <aside
      class={node < 0 ? "panel idle" : "panel"}
      data-testid="panel"
      aria-label="Selected step"
      onKeyDown={(event) => event.key === "Escape" && onSelect(-1)}
    >
      {node < 0 ? <Idle {...props} /> : <Step {...props} labels={labels} />}
    </aside>
  );
}

function Idle({ shape, forest, onSelect }: TreeProps) {
  return (
    <>
      <p class="hint">
        Choose a step in the drawing to read what the agent saw, thought and did there, and what its siblings did instead.
      </p>
      <h4>Where it starts</h4>
      <p class="text">{forest.strings[shape.tree.observation]}</p>
      <WhyHere shape={shape} forest={forest} onSelect={onSelect} />
    </>
  );
}

function Step({ shape, forest, node, onSelect, folds, setFolds, labels }: TreeProps & { labels: Labels }) {
  const { nodes } = shape.tree;
  const text = (index: number | undefined) => (index === undefined ? "" : forest.strings[index]!);
  const above = nodes.parent[node]!;
  const siblings = siblingsOf(shape, node);
  const chain = chainOf(shape, node);
  const mode = nodes.mode[node];
  const fold = () => {
    onSelect(-1);
    setFolds(toggleChain(folds, chain));
  };
  return (
    <>
      <header>
        <h4>
          Step {shape.depth[node]}
          {shape.tree.horizon > 0 && <small> of at most {shape.tree.horizon}</small>}
        </h4>
        {chain >= 0 && folds.open.has(chain) && (
          <button type="button" class="quiet" data-testid="fold-chain" onClick={fold}>
            fold chain
          </button>
        )}
        <button type="button" class="quiet" data-testid="close-panel" aria-label="Close the step" onClick={() => onSelect(-1)}>
          ✕
        </button>
      </header>
      <Path shape={shape} node={node} labels={labels} onSelect={onSelect} />
      <Part title="Saw">{text(above < 0 ? shape.tree.observation : nodes.observation[above])}</Part>
      <Part
        title="Thought"
        badge={<span class={`badge m-${mode}`}>{MODES[mode ?? "-"]}</span>}
      >
        {labels.reasoning(node) || <em>no reasoning that can be told from the rest</em>}
      </Part>
      <Part title="Did" badge={<Validity flags={nodes.flags[node]!} />} testid="panel-action">
        {labels.action(node)}
      </Part>
      {nodes.text[node] !== undefined && <Part title="Wrote, as it was">{text(nodes.text[node]) || <em>nothing</em>}</Part>}
      <Part title="The environment answered">{text(nodes.observation[node])}</Part>
      <Numbers shape={shape} node={node} />
      <ForkWords shape={shape} labels={labels} node={node} onSelect={onSelect} />
      {siblings.length > 0 && <Siblings shape={shape} siblings={siblings} node={node} labels={labels} onSelect={onSelect} />}
    </>
  );
}

function Part({
  title,
  badge,
  testid,
  children,
}: {
  title: string;
  badge?: ComponentChildren;
  testid?: string;
  children: ComponentChildren;
}) {
  return (
    <section>
      <h5>
        {title} {badge}
      </h5>
      <p class="text" data-testid={testid}>
        {children}
      </p>
    </section>
  );
}

function Validity({ flags }: { flags: number }) {
  return (
    <>
      {!(flags & WELL_FORMED) && <span class="badge bad">malformed</span>}
      {!!(flags & WELL_FORMED) && !(flags & ADMISSIBLE) && <span class="badge bad">not possible here</span>}
      {!!(flags & REPEATED) && <span class="badge warn">repeated</span>}
      {!!(flags & SHORTENED) && <span class="badge warn">prompt was shortened</span>}
    </>
  );
}

/** The way from the start, a number a step. */
function Path({ shape, node, labels, onSelect }: Pick<TreeProps, "shape" | "node" | "onSelect"> & { labels: Labels }) {
  return (
    <nav class="path" aria-label="Steps from the start">
      <ol>
        {pathTo(shape, node).map((step) => (
          <li key={step} class={hueClass(shape, step, "outcome")}>
            <button
              type="button"
              data-testid="crumb"
              class={shape.tree.nodes.mode[step] === "e" ? "exploring" : ""}
              aria-current={step === node ? "step" : undefined}
              aria-label={`Step ${shape.depth[step]}: ${labels.action(step)}`}
              title={labels.action(step)}
              onClick={() => onSelect(step)}
            >
              {shape.depth[step]}
            </button>
          </li>
        ))}
      </ol>
    </nav>
  );
}

function Numbers({ shape, node }: { shape: Shape; node: number }) {
  const { logprob, tokens, entropy, advantage, reward, flags } = shape.tree.nodes;
  const [sum, count, value] = [logprob[node] ?? null, tokens[node]!, advantage[node] ?? null];
  const below = shape.below[node]!;
  return (
    <section>
      <h5>Numbers</h5>
      <dl class="numbers">
        <dt>Advantage</dt>
        <dd>
          {value === null ? "not known" : <b class={`advantage ${advantageClass(value)}`}>{signed(value)}</b>}{" "}
          {value !== null && <small>{meaning(value)}</small>}
        </dd>
        <dt>Leaves below</dt>
        <dd>
          {isLeaf(shape, node)
            ? flags[node]! & SUCCESS
              ? "ends here, won"
              : flags[node]! & DONE
                ? "ends here, not won"
                : "ends here, out of time"
            : `${below}, ${shape.won[node]} won`}{" "}
          <Outcomes won={shape.won[node]!} of={below} />
        </dd>
        {reward[node] !== 0 && (
          <>
            <dt>Reward</dt>
            <dd>{number(reward[node])}</dd>
          </>
        )}
        <dt>Log-probability</dt>
        <dd>
          {sum === null ? (
            "not recorded"
          ) : (
            <>
              {number(sum)} nats
              {count > 0 && (
                <small>
                  {" "}
                  over {plural(count, "token")}: {percent(Math.exp(sum / count), 1)} a token
                </small>
              )}
            </>
          )}
        </dd>
        <dt>Entropy</dt>
        <dd>
          {entropy[node] == null ? (
            "not recorded"
          ) : (
            <>
              {number(entropy[node])} nats<small> a token, on average</small>
            </>
          )}
        </dd>
      </dl>
    </section>
  );
}

function meaning(value: number): string {
  if (Math.abs(value) < 0.005) return "what led through here did as well as the tree on average: nothing is learnt from it";
  return value > 0
    ? "what led through here did better than this tree on average: the step becomes more likely"
    : "what led through here did worse than this tree on average, or was penalised: the step becomes less likely";
}

function Siblings({
  shape,
  siblings,
  node,
  labels,
  onSelect,
}: Pick<TreeProps, "shape" | "node" | "onSelect"> & { siblings: number[]; labels: Labels }) {
  const { advantage, action } = shape.tree.nodes;
  return (
    <section data-testid="siblings">
      <h5>What the {siblings.length === 1 ? "sibling" : `${siblings.length} siblings`} did instead</h5>
      <ul class="siblings">
        {siblings.map((other) => {
          const value = advantage[other] ?? null;
          return (
            <li key={other}>
              <button type="button" data-testid="sibling" data-node={other} onClick={() => onSelect(other)}>
                <span class="what">
                  {labels.action(other)} {action[other] === action[node] && <small>(the same)</small>}
                </span>
                <span class="facts">
                  <Outcomes won={shape.won[other]!} of={shape.below[other]!} />
                  <span class="grow">
                    {shape.won[other]} of {shape.below[other]} won
                  </span>
                  {value !== null && <b class={`advantage ${advantageClass(value)}`}>{signed(value)}</b>}
                </span>
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
