/** What is said of forks, trees and numbers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { metricOf } from "../src/charts/metric-of";
import type { Forest, Run } from "../src/contract";
import { table } from "../src/csv";
import { duration, line, number, short, signed } from "../src/format";
import { flat } from "../src/settings";
import { chosen, mostTelling, NONE, occurrences, stepsWith } from "../src/tree/filter";
import { modesOf } from "../src/tree/modes";
import { shapeOf } from "../src/tree/shape";
import { sentence, whys } from "../src/tree/why";
import { tree } from "./trees";

const act = (node: number) => `do ${node}`;

test("a column's metric is that of its name, then of its family", () => {
  const metrics = ["seconds", "seconds_{phase}", "seconds_update"].map((name) => ({ name, about: "", unit: "seconds" }));
  const names = ["seconds", "seconds_update", "seconds_generate", "other", "more_seconds_x", "seconds_"];
  assert.deepEqual(
    names.map((name) => metricOf(name, metrics)?.name),
    ["seconds", "seconds_update", "seconds_{phase}", undefined, undefined, undefined],
  );
});

test("a fork after an exploring step", () => {
  //        0 - 1, 2 both after 0, in one round; then they end
  const shape = shapeOf(tree([-1, 0, 0], [2], [[0, "after", 1, false]], "ett"));
  const [why] = whys(shape);
  assert.deepEqual(
    why!.branches.map(({ node, won, of, added }) => [node, won, of, added]),
    [
      [1, 0, 1, false],
      [2, 1, 1, true],
    ],
  );
  assert.equal(why!.who, "explore");
  assert.equal(
    sentence(shape, why!, act),
    "The agent's reasoning said <explore> at step 1, “do 0”: one more continuation was tried from where it led.",
  );
});

test("a step sampled again when outcomes were known", () => {
  //        0 - 1 - 2 - 3 ends; then 4 beside 1, although 1 had said explore
  const shape = shapeOf(tree([-1, 0, 1, 2, 0], [4], [[1, "decision", 1, true]], "tettt"));
  const [why] = whys(shape);
  assert.deepEqual(
    [why!.point, why!.who, why!.branches.map(({ node, added }) => [node, added])],
    [
      0,
      "outcomes",
      [
        [1, false],
        [4, true],
      ],
    ],
  );
  assert.equal(
    sentence(shape, why!, act),
    "After outcomes were known, the plan went back to step 2, “do 1”: it was sampled once more, actions already taken left out.",
  );
});

test("a decision sampled again at once", () => {
  const shape = shapeOf(tree([-1, -1, 0, 1], [], [[0, "decision", 1, false]], "ettt"));
  assert.equal(whys(shape)[0]!.who, "explore");
  assert.equal(whys(shape)[0]!.point, -1);
});

test("new roots", () => {
  const shape = shapeOf(tree([-1, 0, -1, -1], [], [[null, "decision", 2, false]]));
  const [why] = whys(shape);
  assert.deepEqual(
    why!.branches.filter(({ added }) => added).map(({ node }) => node),
    [2, 3],
  );
  assert.equal(sentence(shape, why!, act), "2 more starts were tried after outcomes were known.");
});

test("several forks at one point share its branches in order", () => {
  const shape = shapeOf(
    tree(
      [-1, 0, 0, 0, 0],
      [],
      [
        [0, "after", 1, false],
        [0, "after", 2, false],
      ],
    ),
  );
  assert.deepEqual(
    whys(shape).map(({ branches }) => branches.filter(({ added }) => added).map(({ node }) => node)),
    [[2], [3, 4]],
  );
});

const entry = (task: number, won: number, leaves: number, forks: number, steps = 10) => ({ task, won, leaves, forks, steps });
const run = {
  name: "a,b",
  tasks: [
    { id: "t0", kind: "heat", instruction: "heat an egg" },
    { id: "t1", kind: "cool", instruction: "cool a pan" },
  ],
  forests: [
    { iteration: 1, trees: [entry(0, 0, 2, 0), entry(1, 1, 2, 1)] },
    { iteration: 3, trees: [entry(1, 2, 2, 0)] },
  ],
  metrics: { iteration: [1, 2], success: [0.5, null] },
} as unknown as Run;
const trees = run.forests[0]!.trees;

test("filters and search", () => {
  assert.deepEqual(chosen(run, trees, NONE), [0, 1]);
  assert.deepEqual(chosen(run, trees, { ...NONE, mixed: true }), [1]);
  assert.deepEqual(chosen(run, trees, { ...NONE, forks: true }), [1]);
  assert.deepEqual(chosen(run, trees, { ...NONE, kind: "heat" }), [0]);
  assert.deepEqual(chosen(run, trees, { ...NONE, text: " EGG" }), [0]);
  const forest: Forest = {
    iteration: 1,
    tasks: run.tasks,
    strings: ["look", "Open fridge 1"],
    trees: [tree([-1]), tree([-1, 0])],
  };
  assert.deepEqual(chosen(run, trees, { ...NONE, text: "open fri" }), []);
  assert.deepEqual(chosen(run, trees, { ...NONE, text: "open fri" }, forest), [1]);
  assert.deepEqual([...stepsWith(forest, 1, "OPEN")], [1]);
  assert.deepEqual([...stepsWith(forest, 1, " ")], []);
});

test("the tree that shows most, and where a task was grown", () => {
  assert.equal(mostTelling(trees), 1);
  assert.equal(mostTelling([entry(0, 1, 2, 1, 9), entry(0, 1, 2, 1, 5)]), 1);
  assert.deepEqual(
    [...occurrences(run, "t1")],
    [
      [1, 1],
      [3, 0],
    ],
  );
});

test("tables to download keep names and gaps", () => {
  assert.equal(table([run]), "iteration,success\r\n1,0.5\r\n2,\r\n");
  assert.equal(table([run, { ...run, name: "c" }]).split("\r\n")[1], '"a,b",1,0.5');
});

test("settings by dotted name", () => {
  const found = flat({ a: { b: 1, c: [1, 2] }, d: [{ e: "x" }], f: null });
  assert.deepEqual(
    [...found],
    [
      ["a.b", "1"],
      ["a.c", "[1,2]"],
      ["d.0.e", "x"],
      ["f", "null"],
    ],
  );
});

test("numbers and lines", () => {
  assert.deepEqual([0.12345, 12345, -0.5, null, 0.00012].map(number), ["0.123", "12,345", "−0.5", "–", "1.2e−4"]);
  assert.deepEqual([0.544, -1.07, 0.001].map(signed), ["+0.54", "−1.07", "0.00"]);
  assert.deepEqual([950, 12_300, 4.5e6].map(short), ["950", "12.3 k", "4.5 M"]);
  assert.deepEqual([12.34, 600, 7200].map(duration), ["12.3 s", "10 min", "2.0 h"]);
  assert.equal(line("a\n  b   c", 4), "a b…");
});

test("a legend names the modes that occur", () => {
  const forest = { iteration: 1, tasks: [], strings: [], trees: [tree([-1, 0], [], [], "mp"), tree([-1], [], [], "e")] };
  assert.deepEqual(modesOf(forest), ["e", "p", "m"]);
  assert.deepEqual(modesOf(undefined), ["e", "t"]);
});
