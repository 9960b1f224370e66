// Numbers, sizes and times as people read them.

const whole = new Intl.NumberFormat("en");
const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => whole.format(Math.round(value));
export const rate = (value) => (value >= 100 ? count(value) : decimal.format(value));
export const messages = (value) => `${count(value)} ${value === 1 ? "message" : "messages"}`;

export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (value >= 1000 && place < units.length - 1) {
    value /= 1000;
    place += 1;
  }
  return `${decimal.format(value)} ${units[place]}`;
}

export function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "less than 1 s";
  const [length, unit] = parts[first];
  const next = parts[first + 1];
  const more = next ? Math.floor((seconds % length) / next[0]) : 0;
  return `${whole.format(Math.floor(seconds / length))} ${unit}${more ? ` ${more} ${next[1]}` : ""}`;
}

// An estimate: it need not be exact, and beyond a month it says nothing.
export function estimate(seconds) {
  return seconds > 30 * 86400 ? "more than 30 days" : `about ${duration(seconds)}`;
}

export function time(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  const clock = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? clock : `${date.toLocaleDateString("en-CA")} ${clock}`;
}
