/** Stages of `deno task gpu-check`: each has its time, each result goes out as it comes, and a failure ends its stage alone. */
import type { Row } from "./table.ts";

/** Runs stages one after the other and keeps their results. A row with `ok: false` counts as failed, and so does an error. */
export class Stages {
  readonly rows: Row[] = [];
  failed = 0;
  readonly #began = performance.now();
  #end = 0;

  /**
   * @param seconds of all stages together
   * @param wanted names of the stages to run; undefined: all
   * @param write takes each row as it comes
   */
  constructor(
    readonly card: string,
    readonly seconds: number,
    readonly wanted: readonly string[] | undefined,
    readonly write: (row: Row) => void,
  ) {}

  /** Seconds since the begin. */
  get passed(): number {
    return (performance.now() - this.#began) / 1000;
  }

  /** Seconds that the stage which runs has left. */
  get left(): number {
    return this.#end - this.passed;
  }

  note(stage: string, row: object): void {
    const whole = { stage, card: this.card, ...row };
    this.rows.push(whole);
    this.write(whole);
  }

  /** One stage: starts nothing new after `seconds` of its own, or when the time of all is over. */
  async run(stage: string, seconds: number, results: () => AsyncIterable<object>): Promise<void> {
    if (this.wanted?.includes(stage) === false) return;
    if (this.passed >= this.seconds) {
      return this.note(stage, { skipped: `the ${Math.round(this.seconds)} s of the check are over` });
    }
    this.#end = Math.min(this.passed + seconds, this.seconds);
    try {
      for await (const row of results()) {
        if ((row as { ok?: boolean }).ok === false) this.failed++;
        this.note(stage, row);
        if (this.left > 0 || "skipped" in row) continue;
        this.note(stage, {
          skipped: `what would follow: the ${Math.round(seconds)} s of this stage are over`,
        });
        break;
      }
    } catch (error) {
      this.failed++;
      this.note(stage, { error: (error as Error).message });
    }
  }
}
