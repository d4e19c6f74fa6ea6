/** Errors against PyTorch that a test measured, for the table in docs/measurements.md (tests/parity/table.ts). */

/** What was compared (one of op, network, method) and the largest relative errors. */
export interface Row {
  op?: string;
  network?: string;
  method?: string;
  /** Version of the judge. */
  torch: string;
  output?: number;
  gradient?: number;
  losses?: number;
  weights?: number;
}

/** Prints the row when the tests were started with `-- --errors`. */
export function report(row: Row): void {
  if (Deno.args.includes("--errors")) console.log(JSON.stringify({ parity: row }));
}
