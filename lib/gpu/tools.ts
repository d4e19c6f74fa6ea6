/** Compilers and what they built: started, waited for, their output kept. */

/** How a program ended, with all that it wrote. */
export interface Outcome {
  ok: boolean;
  text: string;
  seconds: number;
}

/** Runs a program to its end. @throws Deno.errors.NotFound when there is none of that name */
export async function runTool(program: string, args: readonly string[]): Promise<Outcome> {
  const began = performance.now();
  const child = new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return {
    ok: success,
    text: decoder.decode(stdout) + decoder.decode(stderr),
    seconds: (performance.now() - began) / 1000,
  };
}

/** The first of `names` that starts with `--version`, or undefined. */
export async function firstTool(names: readonly string[]): Promise<string | undefined> {
  for (const name of names) {
    try {
      if ((await runTool(name, ["--version"])).ok) return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
    }
  }
}

/** Does `work` on every item, `width` at a time; results in the order of the items. */
export async function each<T, R>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const at = next++;
      results[at] = await work(items[at]);
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  return results;
}
