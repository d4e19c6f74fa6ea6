/** Errors that a user can act on, and those of the system. Everything else is a defect of ours and shows as one. */

/** The input, the data or the machine is not as needed: exit 1. The message names file, field, value and fix. */
export class UserError extends Error {
  readonly exitCode: number = 1;
}

/** The command line is not understood: exit 2. */
export class UsageError extends UserError {
  override readonly exitCode = 2;
}

/** What the system has against a path, by class of error. */
const REFUSALS = [
  [Deno.errors.NotFound, "there is no such file or folder; correct the path"],
  [Deno.errors.IsADirectory, "this is a folder; name a file"],
  [Deno.errors.NotADirectory, "this, or a part of it, is a file and no folder; correct the path"],
  [Deno.errors.AlreadyExists, "there is a file of that name; choose another"],
  [Deno.errors.PermissionDenied, "the system denies access; change its permissions or choose another path"],
] as const;

/** The path that an error of the system names, as the user knows it: without the `.partial` of a file under way. */
function pathOf(text: string): { path: string; partial: boolean } {
  const named = text.match(/^[^']*'(.*?)'(?: -> '(.*)')?/s);
  const full = named?.[2] ?? named?.[1] ?? ""; // of a rename the second
  const path = full.replace(/(\.\d+)?\.partial(?=$|[/\\])/, "");
  return { path, partial: path !== full };
}

/** Sentence for an error of the system: which path, what is wrong, what to do. Undefined for any other error. */
function systemError(error: Error): string | undefined {
  const text = error.message;
  if (error instanceof Deno.errors.NotCapable) {
    const [, kind = "read", place = ""] = text.match(/Requires (\w+) access(?: to "?([^",]+)"?)?/) ?? [];
    const path = place.replace(/(\.\d+)?\.partial$/, "");
    // What the system itself keeps (/proc, /dev, ...) no single flag opens.
    if (kind === "all") return `${path}: this place belongs to the system; choose another path`;
    return `no permission: this needs ${kind} access${path && ` to ${path}`}; add --allow-${kind}${
      path && `=${path}`
    }`;
  }
  if (/No space left|os error 28/.test(text)) {
    return `the disk is full: ${text}; free some space and run the same command again`;
  }
  if (error instanceof RangeError && /allocation failed|Invalid (typed )?array length/.test(text)) {
    return `the memory does not suffice (${text}); lower the sizes asked for`;
  }
  const { path, partial } = pathOf(text);
  const refusal = REFUSALS.find(([kind]) => error instanceof kind)?.[1];
  if (error instanceof Deno.errors.NotFound && partial) {
    return `${path}: there is no such folder to write to; make it or correct the path`;
  }
  if (refusal) return path ? `${path}: ${refusal}` : `${refusal} (${text})`;
  if (/\(os error \d+\)/.test(text)) return `the system says: ${text.replaceAll(/(\.\d+)?\.partial\b/g, "")}`;
}

/** Where the stack of an error leads through, from the inside out: `lib/tensor.ts:12:3`. */
function places(error: Error): string[] {
  const root = new URL("..", import.meta.url).href;
  return [...(error.stack ?? "").matchAll(/(file:\S+?:\d+:\d+)\)?$/gm)].map(([, at]) => at.replace(root, ""));
}

/**
 * One sentence for the user from anything thrown, with the exit code that goes with it. What is neither the user's nor
 * the system's is a defect of ours, and the sentence says so and where.
 */
export function explain(error: unknown): { message: string; exitCode: number } {
  if (error instanceof UserError) return { message: error.message, exitCode: error.exitCode };
  const cause = error instanceof Error ? error : new Error(String(error));
  const message = systemError(cause) ??
    `this is a defect of voxalign, please report it: ${cause.name}: ${cause.message.slice(0, 1000)} (${
      places(cause).slice(0, 8).join(" < ")
    })`;
  return { message, exitCode: 1 };
}

/**
 * The candidate that `name` begins, else the nearest by edit distance (two letters exchanged count once), for "did you
 * mean"; undefined where more than half of the letters differ.
 */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const distance = (a: string, b: string): number => {
    let before: number[] = [];
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) {
        next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
        if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) next[j] = Math.min(next[j], before[j - 2] + 1);
      }
      [before, row] = [row, next];
    }
    return row[b.length];
  };
  const begun = candidates.find((candidate) => name !== "" && candidate.startsWith(name));
  const [near] = candidates.map((c) => ({ c, letters: distance(name, c) })).sort((a, b) =>
    a.letters - b.letters
  );
  const most = Math.max(name.length, near?.c.length ?? 0) / 2;
  return begun ?? (near && near.letters <= most ? near.c : undefined);
}

/** The end of a sentence on an unknown name: `did you mean "x"? (x, y)`, or where none is near `it must be x, y`. */
export function oneOf(name: string, candidates: readonly string[]): string {
  const guess = nearest(name, candidates);
  const all = candidates.join(", ");
  return guess === undefined ? `it must be one of ${all}` : `did you mean "${guess}"? (${all})`;
}
