/** Which of several runs a section is about; nothing where there is no choice. */
import type { Run } from "./contract";

interface Props {
  testid: string;
  runs: readonly Run[];
  run: Run;
  onChoose: (id: string) => void;
}

export function RunSelect({ testid, runs, run, onChoose }: Props) {
  if (runs.length < 2) return null;
  return (
    <label>
      <span>Run</span>
      <select data-testid={testid} value={run.id} onChange={(event) => onChoose(event.currentTarget.value)}>
        {runs.map(({ id, name }) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}
