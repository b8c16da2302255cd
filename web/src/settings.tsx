/**
 * The settings of the runs side by side, those first in which they differ.
 *
 * Invariant: every setting that was saved is listed, by its dotted name and as JSON.
 */
import type { Run } from "./contract";

export function Settings({ all }: { all: Run[] }) {
  const each = all.map((run) => flat(run.settings));
  const names = [...new Set(each.flatMap((settings) => [...settings.keys()]))];
  if (!names.length) return null;
  const differs = (name: string) => new Set(each.map((settings) => settings.get(name))).size > 1;
  const several = all.length > 1;
  const rows = several ? [...names.filter(differs), ...names.filter((name) => !differs(name))] : names;
  const count = several ? names.filter(differs).length : 0;
  return (
    <details data-testid="settings">
      <summary>Settings{several && `: ${count === 0 ? "the same in all runs" : `${count} of ${names.length} differ`}`}</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label="Settings">
        <table class="settings">
          <thead>
            <tr>
              <th scope="col">setting</th>
              {all.map((run) => (
                <th scope="col" key={run.id}>
                  {several ? run.name : "value"}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((name) => (
              <tr key={name} class={several && differs(name) ? "differs" : ""}>
                <th scope="row">
                  {name} {several && differs(name) && <span class="unseen">(differs)</span>}
                </th>
                {each.map((settings, i) => (
                  <td key={i}>{settings.get(name) ?? "–"}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

/** Leaves of nested JSON by dotted name; a list is a leaf unless it holds objects. */
export function flat(value: unknown, prefix = "", into = new Map<string, string>()): Map<string, string> {
  const nested =
    typeof value === "object" && value !== null && (!Array.isArray(value) || value.some((entry) => typeof entry === "object"));
  if (nested) for (const [name, inner] of Object.entries(value)) flat(inner, prefix ? `${prefix}.${name}` : name, into);
  else if (value !== undefined && (prefix || value !== null))
    into.set(prefix, typeof value === "string" ? value : JSON.stringify(value));
  return into;
}
