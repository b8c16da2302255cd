/**
 * Which curves a run is shown by, and what each metric means, in words for somebody who has not read the paper.
 *
 * Invariant: nothing is declared here. `spark_rl/common/metrics.py` declares charts and metrics, and each page holds them in
 * its element `metrics`, so that a new metric needs no new build of the page. A curve without data is not shown.
 */
import type { Declared } from "../contract";

const { curves, metrics }: Declared = JSON.parse(
  document.getElementById("metrics")?.textContent ?? '{"curves": [], "metrics": []}',
) as Declared;

export { curves as CURVES, metrics as METRICS };
