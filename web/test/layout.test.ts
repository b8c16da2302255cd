/** The drawing's geometry: rows, overlaps, folds, and ways with the keyboard. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { chainOf, chains, type Folds, folded, showing, toggleBranches, toggleChain, unfolded } from "../src/tree/folds";
import { type Kind, layOut, type Layout, type Options, rowsInView } from "../src/tree/layout";
import { move } from "../src/tree/moves";
import { type Shape, shapeOf } from "../src/tree/shape";
import { random, tree } from "./trees";

const NONE: Folds = { open: new Set(), closed: new Set() };
const drawn = (shape: Shape, folds = NONE, kind: Kind = "compact"): Layout => {
  const options: Options = { kind, ...folds, column: 30, box: (nodes) => 60 + 10 * nodes.length, bundle: () => 150 };
  return layOut(shape, options);
};
const kinds = (layout: Layout) => layout.rows.map((row) => row.map(({ kind, nodes }) => `${kind} ${nodes.join(",")}`));

test("a long stretch shows its ends and a chain, which opens and closes", () => {
  const shape = shapeOf(tree([-1, 0, 1, 2, 3]));
  assert.deepEqual(kinds(drawn(shape)), [["step 0", "chain 1,2,3", "step 4"]]);
  assert.deepEqual(chains(shape), [1]);
  const open = toggleChain(NONE, 1);
  assert.deepEqual(kinds(drawn(shape, open)), [["step 0", "fold 1,2,3", "step 1", "step 2", "step 3", "step 4"]]);
  assert.deepEqual(toggleChain(open, 1), NONE);
});

test("a short stretch has no chain", () => {
  assert.deepEqual(kinds(drawn(shapeOf(tree([-1, 0, 1])))), [["step 0", "step 1", "step 2"]]);
});

test("a first child continues its parent's row, the others come below", () => {
  const shape = shapeOf(tree([-1, 0, 0, -1, 1, 2]));
  assert.deepEqual(shape.leaves, [4, 5, 3]);
  assert.deepEqual(kinds(drawn(shape)), [["step 0", "step 1", "step 4"], ["step 2", "step 5"], ["step 3"]]);
});

test("a folded branch is one item in one row", () => {
  const shape = shapeOf(tree([-1, 0, 0, -1]));
  const layout = drawn(shape, toggleBranches(NONE, 0));
  assert.deepEqual(kinds(layout), [["step 0", "bundle 0"], ["step 3"]]);
  assert.deepEqual(layout.ends, [0, 3]);
});

test("by step, every step stands in the column of its number", () => {
  const shape = shapeOf(tree(random(60, 3)));
  for (const row of drawn(shape, NONE, "steps").rows)
    for (const { x, nodes } of row) assert.equal(x + 5 - 10, 30 * shape.depth[nodes[0]!]!);
});

test("nothing overlaps, all is shown once, and every item can be reached and left", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const shape = shapeOf(tree(random(80, seed)));
    const forking = shape.children.findIndex((next) => next.length > 1);
    for (const kind of ["compact", "steps"] as const)
      for (const folds of [NONE, unfolded(shape), forking < 0 ? NONE : toggleBranches(NONE, forking)]) {
        const layout = drawn(shape, kind === "steps" ? NONE : folds, kind);
        for (const row of layout.rows) row.reduce((before, item) => (assert.ok(item.x >= before.x + before.width), item));
        if (!folds.closed.size || kind === "steps") assert.equal(layout.item.size, shape.size);
        const all = new Set(layout.rows.flat());
        const reached = new Set([layout.rows[0]![0]!]);
        for (const item of reached)
          for (const key of ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"] as const)
            reached.add(move(shape, layout, item, key));
        assert.equal(reached.size, all.size, `seed ${seed}, ${kind}`);
      }
  }
});

test("a large tree begins with few rows, and any step can be shown", () => {
  const shape = shapeOf(tree(random(4000, 5)));
  const first = folded(shape);
  assert.ok(shape.leaves.length > 500);
  assert.ok(drawn(shape, first).rows.length < Math.max(60, 1.2 * shape.roots.length), String(drawn(shape, first).rows.length));
  for (let node = 0; node < shape.size; node += 97) {
    const item = drawn(shape, showing(shape, first, node)).item.get(node);
    assert.equal(item?.kind, "step");
  }
  assert.equal(folded(shapeOf(tree(random(80, 1)))).closed.size, 0);
});

test("the chain of a step", () => {
  const shape = shapeOf(tree([-1, 0, 1, 2, 3]));
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((node) => chainOf(shape, node)),
    [-1, 1, 1, 1, -1],
  );
});

test("rows in view", () => {
  assert.deepEqual(rowsInView(0, 100, 20, 1000), [0, 9]);
  assert.deepEqual(rowsInView(10_000, 100, 20, 1000), [496, 509]);
  assert.deepEqual(rowsInView(0, 100, 20, 0), [0, 0]);
  assert.deepEqual(rowsInView(99_999, 100, 20, 10), [10, 10]);
});
