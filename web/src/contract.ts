/**
 * What the page is given: written by `spark_rl/report/payload.py`, which documents each field where it is made.
 *
 * Every page holds `Declared` as JSON in `<script type="application/json" id="metrics">`. A report embeds `Run[]` in
 * `<script type="application/json" id="runs">` and each forest as base64 of gzipped JSON in
 * `<script type="text/plain" id="forest-RUN-ITERATION">`. The live server answers the same values:
 * `api/runs` -> `Run[]`, `api/runs/RUN` -> `Run`, `api/runs/RUN/forests/ITERATION` -> `Forest`, and `events` is a stream
 * of server-sent events named `changed` whose data is the id of a run to fetch again.
 */

/** A metric, as `spark_rl/common/metrics.py` declares it. */
export interface Metric {
  /** `{word}` stands for what varies in the names of a family. */
  name: string;
  /** What it means, in a sentence. */
  about: string;
  /** `share` is written in per cent. */
  unit: string;
}

/** A chart of metrics over the iterations. */
export interface Curve {
  id: string;
  title: string;
  /** What it is and what to look for, in a line. */
  why: string;
  /** Its lines; the label tells several apart, and is empty otherwise. */
  columns: { name: string; label: string }[];
  /** The ends of the interval around its line. */
  band: [low: string, high: string] | null;
  /** Shares are written in per cent, and their axis starts at zero. */
  share: boolean;
}

/** What the page says of metrics, whatever the runs. */
export interface Declared {
  curves: Curve[];
  metrics: Metric[];
}

/** Numbers by iteration, one column a metric; null where a row has no such number (or one that is not finite). */
export type Metrics = Record<string, (number | null)[]>;

export interface Task {
  id: string;
  kind: string;
  instruction: string;
}

/** One tree in the index of a forest: enough to list and to filter without opening the forest. */
export interface TreeEntry {
  /** Index in `Run.tasks`. */
  task: number;
  steps: number;
  leaves: number;
  won: number;
  forks: number;
}

export interface ForestEntry {
  iteration: number;
  /** In the order of `Forest.trees`. */
  trees: TreeEntry[];
  /** Why this forest cannot be opened (left out for size, unreadable); absent where it can. */
  missing?: string;
}

export interface Kind {
  wins: number;
  tasks: number;
}

export interface Mean {
  tasks: number;
  types: number | null;
}

/** What choosing among the leaves of trees brought. */
export interface Branching {
  leaves: number | null;
  alone: number | null;
  gained: number;
  lost: number;
  pass_at_leaves: number | null;
  alone_tokens: number | null;
  alone_steps: number | null;
  /** Success by each rule of choosing. */
  [by_rule: `by_${string}`]: number;
}

/** `LevelResult` of `spark_rl/evaluation/results.py`, which documents each number; null where an older run has none. */
export interface Evaluation {
  success: number;
  low: number;
  high: number;
  wins: number;
  tasks: number;
  samples: number;
  episodes: number;
  score: number | null;
  steps: number | null;
  steps_won: number | null;
  explore_ratio: number | null;
  malformed_ratio: number | null;
  inadmissible_ratio: number | null;
  invalid_ratio: number | null;
  repetitive_ratio: number | null;
  truncated_ratio: number | null;
  empty_ratio: number | null;
  tokens: number | null;
  env_steps: number | null;
  prefilled: number;
  reused: number;
  discarded: number;
  failed: number;
  failures: string[];
  kinds: Record<string, Kind>;
  averages: Record<string, Mean>;
  pass_at?: Record<string, number>;
  branching?: Branching;
}

export interface Run {
  id: string;
  /** Shown: unique on the page. */
  name: string;
  recipe: string;
  seed: number | null;
  /** In words: "finished", "12 of 30 iterations". */
  state: string;
  finished: boolean;
  /** Iterations planned; null when the recipe cannot be read. */
  planned: number | null;
  /** Sentences for the reader: what is missing, cut short, or of an older version. */
  notes: string[];
  /** Settings as they were saved, nested JSON, for reading and comparing. */
  settings: unknown;
  metrics: Metrics;
  /** moment ("before", "after") -> level ("L0") -> result. */
  evaluations: Record<string, Record<string, Evaluation>>;
  tasks: Task[];
  forests: ForestEntry[];
}

/** A fork: [node | null for new roots, moment, continuations granted, whether actions already taken were excluded]. */
export type Fork = [number | null, "after" | "decision", number, boolean];

/** Steps of a tree in the order of growth, one column a field; parents come before children, -1 is the start. Texts are indices. */
export interface Nodes {
  parent: number[];
  /** One character a node, a key of `MODES` in tree/modes.ts. */
  mode: string;
  action: number[];
  reasoning: number[];
  /** What the environment answered; what the agent saw before is the parent's, or the tree's for a first step. */
  observation: number[];
  /** The whole completion, of those nodes only whose completion was malformed: node -> text. */
  text: Record<string, number>;
  /** Bits: 1 well formed, 2 admissible, 4 success, 8 done, 16 repeated action, 32 prompt shortened. */
  flags: number[];
  reward: number[];
  /** Tokens sampled. */
  tokens: number[];
  /** Log-probability of the completion (sum over its tokens, nats); null when the policy gave none. */
  logprob: (number | null)[];
  /** Mean entropy of its tokens in nats; null when not known. */
  entropy: (number | null)[];
  /** Mean over the leaves below (or the node's own); null when the run's estimator cannot be run. */
  advantage: (number | null)[];
}

export interface Tree {
  /** Index in `Forest.tasks`. */
  task: number;
  /** The first observation. */
  observation: number;
  /** Leaves ever created, and the most that were allowed (0: not known). */
  opened: number;
  cap: number;
  horizon: number;
  forks: Fork[];
  nodes: Nodes;
}

/** Complete in itself: a run's own table of tasks may have changed since it was opened. A task is known by its id. */
export interface Forest {
  iteration: number;
  tasks: Task[];
  strings: string[];
  trees: Tree[];
}
