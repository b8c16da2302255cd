"""Cells side by side, each in its own process. Cold starts are made ahead, so that no process waits for one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from spark_rl.contracts import Watcher
from spark_rl.errors import SparkError
from spark_rl.experiments.compare.cells import Cell, CellResult
from spark_rl.experiments.compare.processes import Runner
from spark_rl.experiments.compare.results import Results
from spark_rl.experiments.compare.training import cold_start, run_cell

__all__ = ["work"]


def work(results: Results, groups: Sequence[Sequence[Cell]], jobs: int, watcher: Watcher) -> list[str]:
    """Run the cells that have no result yet; returns a sentence for each cell that failed.

    Args:
        results: the directory of the comparison.
        groups: cells with one cold start each, in the order of work.
        jobs: number of processes side by side.
        watcher: shows the progress.
    """
    missing = [rest for cells in groups if (rest := [cell for cell in cells if not results.done(cell)])]
    total = sum(map(len, groups))
    done = total - sum(map(len, missing))
    watcher.phase("cells", total, done)
    failures: list[str] = []
    runner = Runner()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed(futures := _submit(results, runner, missing, jobs, pool)):
                cell = futures[future]
                try:
                    result = future.result()
                except SparkError as error:
                    failures.append(f"{cell.name}: {error}")
                    watcher.note(failures[-1])
                else:
                    done += 1
                    watcher.advance(done)
                    watcher.note(f"{cell.name}: {result['curve'][-1]['success']:.3f} ({done}/{total})")
        except BaseException as error:
            runner.stop()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt("the same command continues it") from None
            raise
    return failures


def _submit(
    results: Results, runner: Runner, missing: Sequence[Sequence[Cell]], jobs: int, pool: ThreadPoolExecutor
) -> dict[Future[CellResult], Cell]:
    """Queue each cold start `jobs` groups before its cells. A cell waits only for jobs that were queued before it."""
    starts: list[Future[None]] = []
    futures: dict[Future[CellResult], Cell] = {}

    def begin(cell: Cell, start: Future[None]) -> CellResult:
        start.result()
        return run_cell(results, runner, cell)

    for place, cells in enumerate(missing):
        ahead = missing[len(starts) : place + jobs]
        starts += [pool.submit(cold_start, results, runner, others[0]) for others in ahead]
        futures |= {pool.submit(begin, cell, starts[place]): cell for cell in cells}
    return futures
