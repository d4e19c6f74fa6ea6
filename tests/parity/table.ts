/**
 * The parity table of docs/measurements.md from what the tests print:
 * `deno task test -- --errors | deno run tests/parity/table.ts`
 */
import type { Row } from "./report.ts";

const rows = new Map<string, Row>();
const text = await new Response(Deno.stdin.readable).text();
for (const line of text.split("\n")) {
  if (!line.startsWith('{"parity":')) continue;
  const row: Row = JSON.parse(line).parity;
  const key = JSON.stringify([row.op, row.network, row.method]);
  const known = rows.get(key) ?? row;
  for (const field of ["output", "gradient", "losses", "weights"] as const) {
    if (row[field] !== undefined) known[field] = Math.max(row[field], known[field] ?? 0);
  }
  rows.set(key, known);
}

const number = (value?: number) => value === undefined ? "" : value === 0 ? "0" : value.toExponential(1);
const sorted = (kind: "op" | "network" | "method") =>
  [...rows.values()].filter((row) => row[kind]).sort((a, b) => a[kind]! < b[kind]! ? -1 : 1);

console.log("| op | output | gradients | torch |\n|---|---|---|---|");
for (const { op, output, gradient, torch } of sorted("op")) {
  console.log(`| \`${op}\` | ${number(output)} | ${number(gradient)} | ${torch} |`);
}
console.log("\n| network | output | gradients | torch |\n|---|---|---|---|");
for (const { network, output, gradient, torch } of sorted("network")) {
  console.log(`| ${network} | ${number(output)} | ${number(gradient)} | ${torch} |`);
}
console.log("\n| method, network | ten losses | final weights | torch |\n|---|---|---|---|");
for (const { method, losses, weights, torch } of sorted("method")) {
  console.log(`| ${method} | ${number(losses)} | ${number(weights)} | ${torch} |`);
}
