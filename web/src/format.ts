/**
 * Numbers and texts as the page writes them. Pure functions; a real minus sign, and no more digits than say something.
 */

const GROUPED = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

export const integer = (value: number) => GROUPED.format(value);

/** Three significant digits or so: 0.123, 12.3, 1,234. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return integer(value);
  if (size === 0) return "0";
  if (size < 0.001) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

export const percent = (value: number, digits = 0) => `${(100 * value).toFixed(digits)} %`;

/** Always with a sign: +0.54, −1.07. */
export function signed(value: number): string {
  const text = Math.abs(value).toFixed(2);
  return Number(text) === 0 ? "0.00" : (value < 0 ? "−" : "+") + text;
}

/** 1.2 k, 3.4 M. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(3))} G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
  return number(value);
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${number(Number(seconds.toPrecision(3)))} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const plural = (count: number, one: string, many = `${one}s`) => `${integer(count)} ${count === 1 ? one : many}`;

/** One line, cut to a length. */
export function line(text: string, most: number): string {
  const flat = text.replace(/\s+/g, " ").trim();
  return flat.length <= most ? flat : `${flat.slice(0, most - 1)}…`;
}
