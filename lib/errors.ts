/** Errors that a user can act on. Everything else is a defect of ours and shows as one. */

/** The input, the data or the machine is not as needed: exit 1. The message names file, field, value and fix. */
export class UserError extends Error {
  readonly exitCode: number = 1;
}

/** The command line is not understood: exit 2. */
export class UsageError extends UserError {
  override readonly exitCode = 2;
}

/** One sentence for the user from anything thrown, with the exit code that goes with it. */
export function explain(error: unknown): { message: string; exitCode: number } {
  if (error instanceof UserError) return { message: error.message, exitCode: error.exitCode };
  if (error instanceof Deno.errors.NotCapable) {
    const [, kind = "read", path = ""] = error.message.match(/Requires (\w+) access(?: to "?([^",]+)"?)?/) ??
      [];
    return {
      message: `no permission: this needs ${kind} access${path && ` to ${path}`}; add --allow-${kind}${
        path && `=${path}`
      }`,
      exitCode: 1,
    };
  }
  if (error instanceof Deno.errors.NotFound) return { message: `not found: ${error.message}`, exitCode: 1 };
  if (error instanceof Deno.errors.PermissionDenied) {
    return { message: `the system denies access: ${error.message}`, exitCode: 1 };
  }
  const text = error instanceof Error ? error.message : String(error);
  if (/No space left|os error 28/.test(text)) {
    return {
      message: `the disk is full: ${text}; free some space and run the same command again`,
      exitCode: 1,
    };
  }
  return { message: text.slice(0, 1500), exitCode: 1 };
}

/** The candidate nearest to `name` by edit distance, for "did you mean". */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const distance = (a: string, b: string): number => {
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) {
        next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      }
      row = next;
    }
    return row[b.length];
  };
  return [...candidates].sort((a, b) => distance(name, a) - distance(name, b))[0];
}
