/** The Markdown page of `deno task bench`. */
import type { Row } from "./measure.ts";

/** A row and the processor's peak at that moment. */
export type BenchRow = Row & { peak_gflops: number };

/** What the page says of the run. */
export interface Head {
  machine: string;
  threads: number;
  deno: string;
  precision: string;
  peer: Record<string, string>;
}

const digits = (v: number) => v >= 100 ? v.toFixed(0) : v.toPrecision(3);

/** Work per second in the unit's usual size. */
function rate({ rate, unit }: Row): string {
  if (unit === "FLOP") return `${digits(rate / 1e9)} GFLOP/s`;
  return unit === "voxels" ? `${digits(rate / 1e6)} Mvoxel/s` : `${digits(rate)} ${unit}/s`;
}

/** A table per group: seconds (median), rate, share of the peak measured beside it, the peer, the ratio. */
export function markdown(head: Head, rows: BenchRow[]): string {
  const peer = Object.entries(head.peer).map(([name, version]) => `${name} ${version}`).join(", ");
  const lines = [
    "# Benchmark",
    "",
    `${
      head.machine || "A machine without a name"
    }; ${head.threads} threads; ${head.precision}; Deno ${head.deno}` +
    (peer ? `; peer: ${peer}, in turn with ours, best of its layouts.` : "; no peer."),
    "Seconds are medians. Share: of the peak of all threads measured just before. Ratio: the peer's seconds over ours.",
    "Memory: our tensors; our whole process (resident), in the units of the peer's.",
  ];
  for (const [group, of] of Map.groupBy(rows, (row) => row.group)) {
    lines.push("", `## ${group}`, "", "| work | s | rate | share | memory | peer s | peer memory | ratio |");
    lines.push("|---|---|---|---|---|---|---|---|");
    for (const row of of) {
      const gib = (v?: number) => v ? `${(v / 2 ** 30).toFixed(2)} GiB` : "";
      const cells = [
        row.name,
        digits(row.seconds),
        rate(row),
        row.share_of_peak ? `${(100 * row.share_of_peak).toFixed(0)} %` : "",
        [gib(row.peak_bytes), gib(row.resident_bytes)].filter(Boolean).join("; "),
        row.peer_seconds
          ? `${digits(row.peer_seconds)}${row.peer_variant ? ` (${row.peer_variant})` : ""}`
          : "",
        gib(row.peer_peak_bytes),
        row.ratio ? `**${row.ratio.toFixed(2)}**` : "",
      ];
      lines.push(`| ${cells.join(" | ")} |`);
    }
  }
  return lines.join("\n") + "\n";
}
