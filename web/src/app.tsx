/**
 * The page: its head, and its sections in the order in which questions come up.
 *
 * Invariant: there is something to read in every state, also without runs, without iterations, without a connection.
 */
import { useEffect } from "preact/hooks";
import { Costs } from "./costs";
import { Curves } from "./curves";
import { Explorer } from "./forest/explorer";
import { Forks } from "./forks";
import { Head } from "./head";
import { Overview } from "./overview";
import { connected, linked, problem, runs } from "./state";

export function App() {
  const all = runs.value;
  const ready = all !== null;
  useEffect(() => {
    if (ready && linked) document.getElementById("trees")?.scrollIntoView();
  }, [ready]);
  return (
    <>
      <Head />
      <main>
        {!connected.value && (
          <p class="note" role="status">
            The server does not answer. What is shown may be old; it goes on by itself when the server is back.
          </p>
        )}
        {problem.value && (
          <p class="note bad" role="alert">
            The runs cannot be read: {problem.value}
          </p>
        )}
        {!ready && !problem.value && <p class="empty">Reading the runs …</p>}
        {ready && !all.length && <p class="empty big">There is no run here yet. Start one with “spark-rl train quickstart”.</p>}
        {ready && all.length > 0 && (
          <>
            <Overview />
            <Curves />
            <Explorer />
            <Forks />
            <Costs />
          </>
        )}
      </main>
    </>
  );
}
