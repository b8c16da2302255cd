/**
 * The trees of a forest: a list of which only what is in view exists; on a narrow window a select.
 *
 * Invariant: rows are of equal height, so that the place of each is a product. The list is one stop of the tab key;
 * arrow keys move in it, and what they reach is opened.
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { plural, short } from "../format";
import { type Looked, lookAtTree } from "../state";
import { rowsInView } from "../tree/layout";

const ROW = 62;

interface Props {
  now: Looked;
  /** Trees that pass the filters. */
  list: number[];
}

export function TreeList(props: Props) {
  return (
    <div class="trees">
      <Select {...props} />
      <List {...props} />
    </div>
  );
}

function Select({ now, list }: Props) {
  const { run, entry, tree } = now;
  return (
    <label class="tree-select">
      <span>Tree</span>
      <select
        data-testid="tree-select"
        value={list.includes(tree) ? tree : ""}
        onChange={(event) => event.currentTarget.value !== "" && lookAtTree(Number(event.currentTarget.value))}
      >
        {!list.includes(tree) && <option value="">{plural(list.length, "tree")} …</option>}
        {list.map((index) => {
          const found = entry.trees[index]!;
          return (
            <option key={index} value={index}>
              {found.won}/{found.leaves} won · {run.tasks[found.task]?.instruction}
            </option>
          );
        })}
      </select>
    </label>
  );
}

function List({ now, list }: Props) {
  const { run, entry, tree } = now;
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 640 });
  const look = () => box.current && setView({ top: box.current.scrollTop, height: box.current.clientHeight || 640 });
  const at = list.indexOf(tree);
  useEffect(() => {
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => {
    const element = box.current;
    if (!element || at < 0) return;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW - element.clientHeight;
    look();
  }, [at, run.id, entry.iteration]);

  const move = (event: KeyboardEvent) => {
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1 }[event.key];
    if (next === undefined || !list.length) return;
    event.preventDefault();
    lookAtTree(list[Math.max(0, Math.min(list.length - 1, next))]!);
  };
  const [first, end] = rowsInView(view.top, view.height, ROW, list.length);
  return (
    <div
      class="tree-list"
      data-testid="tree-list"
      role="listbox"
      aria-label={`Trees of iteration ${entry.iteration}`}
      tabIndex={0}
      ref={box}
      onScroll={look}
      onKeyDown={move}
      aria-activedescendant={at >= first && at < end ? `tree-${tree}` : undefined}
    >
      {!list.length && (
        <p class="empty" role="option" aria-disabled="true" aria-selected="false">
          No tree passes the filters.
        </p>
      )}
      <div class="sized" role="presentation" style={{ height: `${list.length * ROW}px` }}>
        {list.slice(first, end).map((index, i) => {
          const found = entry.trees[index]!;
          const task = run.tasks[found.task];
          return (
            <div
              key={index}
              id={`tree-${index}`}
              class="tree-row"
              data-testid="tree-row"
              role="option"
              aria-selected={index === tree}
              aria-setsize={list.length}
              aria-posinset={first + i + 1}
              style={{ top: `${(first + i) * ROW}px`, height: `${ROW}px` }}
              onClick={() => lookAtTree(index)}
            >
              <span class="what">{task?.instruction || task?.id}</span>
              <span class="facts">
                <Outcomes won={found.won} of={found.leaves} />
                <span>
                  {found.won}/{found.leaves}
                  <span class="unseen"> won, </span>
                </span>
                <span class="grow">{task?.kind}</span>
                <span>
                  {short(found.steps)} {found.steps === 1 ? "step" : "steps"} · {plural(found.forks, "fork")}
                </span>
              </span>
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** A tiny bar: the share won from the left, the rest lost. */
export function Outcomes({ won, of }: { won: number; of: number }) {
  return (
    <span class="outcomes" aria-hidden="true">
      <span class="bar-won" style={{ width: `${(100 * won) / Math.max(of, 1)}%` }} />
    </span>
  );
}
