/** `pretrain` as a user runs it: summary, metrics, stop and resume to the same bytes, refusals, exit codes. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { type Command, grants, parse } from "../../lib/config.ts";
import { StoreWriter } from "../../lib/data/store.ts";
import { LIBRARY } from "../../lib/native/library.ts";
import { command as pairs } from "../../scripts/crop-pairs.ts";
import { command as pretrain } from "../../scripts/pretrain.ts";

const root = fromFileUrl(new URL("../../", import.meta.url));
const allowed = (command: string) => Deno.permissions.querySync({ name: "run", command }).state === "granted";
const ignore = !allowed(Deno.execPath()) || Deno.build.os === "windows";
const SMALL = ["--arch", "resenc-s", "--patch", "32", "--device", "cpu", "--seed", "7"];

function options(command: Command, args: string[]): Deno.CommandOptions & { args: string[] } {
  const parsed = args.some((a) => a === "--threads")
    ? { read: [], write: [] }
    : grants(command, parse(command, args));
  const script = join(root, "scripts", `${command.name}.ts`);
  const flags = [`--allow-read=${[root, ...parsed.read].join(",")}`, `--allow-ffi=${LIBRARY}`];
  if (parsed.write.length) flags.push(`--allow-write=${parsed.write.join(",")}`);
  const line = ["run", "--no-prompt", "--config", join(root, "deno.json"), ...flags, script, ...args];
  return { args: line, stdin: "null", stdout: "piped", stderr: "piped" };
}

const start = (args: string[], more: Deno.CommandOptions = {}) =>
  new Deno.Command(Deno.execPath(), { ...options(pretrain, args), ...more }).spawn();

async function end(child: Deno.ChildProcess) {
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const last = text(stdout).trim().split("\n").at(-1);
  return { code, summary: last ? JSON.parse(last) : undefined, stderr: text(stderr) };
}

const trained = async (args: string[]) => await end(start(args));

/** Four volumes of side 40 and a place for runs. */
async function place(): Promise<{ folder: string; store: string; at: (name: string) => string }> {
  const folder = await Deno.makeTempDir();
  const store = join(folder, "store");
  const writer = await StoreWriter.open(store);
  const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  for (const [k, id] of ["one", "two", "three", "four"].entries()) {
    const bits = Uint16Array.from({ length: 64000 }, (_, i) => (i * (k + 3) + (i >> 5) * 977) % 15000);
    const line = { id, source: `${id}.nii.gz`, status: "stored" as const, reason: "", affine };
    writer.put({ ...line, shape: [40, 40, 40], array: StoreWriter.arrayOf(id) }, bits);
  }
  return { folder, store, at: (name) => join(folder, name) };
}

const weights = (run: string) => Deno.readFile(join(run, "checkpoint", "weights.safetensors"));
const steps = (run: string): number[] =>
  Deno.readTextFileSync(join(run, "metrics.jsonl")).trim().split("\n").map((line) => JSON.parse(line).step);

function everyFile(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) =>
    entry.isDirectory ? everyFile(join(folder, entry.name)) : [join(folder, entry.name)]
  );
}

/** Resolves when `run` has written `count` lines of metrics. */
async function reached(run: string, count: number): Promise<void> {
  for (;;) {
    const text = await Deno.readTextFile(join(run, "metrics.jsonl")).catch(() => "");
    if (text.split("\n").length > count) return;
    await new Promise((done) => setTimeout(done, 10));
  }
}

for (const method of ["mae", "cva"]) {
  Deno.test({
    name: `pretrain ${method}: files and summary; stopped, killed and resumed, the same bytes`,
    ignore,
    fn: async () => {
      const { folder, store, at } = await place();
      const count = method === "cva" ? 8 : 12;
      const args = [store, ...SMALL, "--method", method, "--steps", `${count}`];
      const whole = await trained([...args, "-o", at("whole")]);
      assertEquals(whole.code, 0, whole.stderr);
      for (
        const key of ["parameters", "encoder_parameters", "seconds", "steps_per_second", "peak_memory_bytes"]
      ) {
        assert(whole.summary[key] > 0, key);
      }
      assertEquals([whole.summary.run, whole.summary.steps, whole.summary.device], [
        at("whole"),
        count,
        "cpu",
      ]);
      const first = JSON.parse((await Deno.readTextFile(join(at("whole"), "metrics.jsonl"))).split("\n")[0]);
      const terms = method === "cva" ? ["reconstruction", "alignment", "contrastive"] : [];
      for (const key of ["step", "loss", "seconds", "lr", ...terms]) assert(Number.isFinite(first[key]), key);
      await Deno.stat(join(at("whole"), "report.html"));

      // Two interrupts in a row after a few steps, a kill after more, then the rest.
      const child = start([...args, "-o", at("cut")]);
      const ended = end(child);
      await reached(at("cut"), 3);
      const began = performance.now();
      const signal = method === "cva" ? "SIGTERM" : "SIGINT";
      child.kill(signal);
      if (method === "mae") child.kill("SIGINT");
      const stopped = await ended;
      assert(performance.now() - began < 2000, `${performance.now() - began} ms`);
      assertEquals([stopped.code, stopped.summary.interrupted], [method === "cva" ? 143 : 130, signal]);
      assertStringIncludes(stopped.stderr, "--resume");
      const done = stopped.summary.steps;
      assert(done >= 3 && done < count, `${done}`);
      assertEquals(steps(at("cut")).length, done);
      const second = start([...args, "-o", at("cut"), "--resume"]);
      const killed = end(second);
      await reached(at("cut"), done + 1);
      second.kill("SIGKILL");
      await killed;
      const rest = await trained([...args, "-o", at("cut"), "--resume"]);
      assertEquals([rest.code, rest.summary?.steps], [0, count], rest.stderr);
      assertEquals(steps(at("cut")), Array.from({ length: count }, (_, i) => i + 1));
      assert(
        indexedEqual(await weights(at("cut")), await weights(at("whole"))),
        "other weights after a resume",
      );
      assertEquals(everyFile(folder).filter((file) => /partial|\.old|\.tmp/.test(file)), []);

      const again = await trained([...args, "-o", at("whole"), "--resume"]);
      assertEquals([again.code, again.summary?.steps], [0, count], again.stderr);
      await Deno.remove(folder, { recursive: true });
    },
  });
}

function indexedEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

Deno.test({
  name: "pretrain: pairs from the pipe and pairs drawn inside give the same weights",
  ignore,
  fn: async () => {
    const { folder, store, at } = await place();
    const args = [store, ...SMALL, "--method", "cva", "--steps", "3"];
    const inside = await trained([...args, "-o", at("inside")]);
    assertEquals(inside.code, 0, inside.stderr);
    const source = new Deno.Command(
      Deno.execPath(),
      options(pairs, [store, "--patch", "32", "--seed", "7"]),
    ).spawn();
    const sink = start([...args, "--pairs", "-", "-o", at("piped")], { stdin: "piped" });
    const [piped] = await Promise.all([
      end(sink),
      source.stdout.pipeTo(sink.stdin).catch(() => {/* it has enough */}),
      source.stderr.cancel(),
      source.status,
    ]);
    assertEquals(piped.code, 0, piped.stderr);
    assert(indexedEqual(await weights(at("piped")), await weights(at("inside"))));

    // A pipe is read as training goes on: without --steps the run says where the pipe ended, and keeps what it has.
    const seven = [store, "--patch", "32", "--seed", "7", "--count", "5"];
    const few = await new Deno.Command(Deno.execPath(), options(pairs, seven)).output();
    const line = [store, ...SMALL, "--method", "cva", "--pairs", "-", "-o", at("short")];
    const child = start(line, { stdin: "piped" });
    const ended = end(child);
    await new Blob([few.stdout]).stream().pipeTo(child.stdin);
    const short = await ended;
    assertEquals(short.code, 1);
    for (const text of ["there are 5", "step 3 needs 6", "--steps 2"]) {
      assertStringIncludes(short.stderr, text);
    }
    assertEquals(steps(at("short")), [1, 2]);
    await weights(at("short"));
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "pretrain: one core and two give the same weights (skipped without permission to run taskset)",
  ignore: ignore || !allowed("taskset"),
  fn: async () => {
    const { folder, store, at } = await place();
    const args = (name: string) => [store, ...SMALL, "--method", "cva", "--steps", "3", "-o", at(name)];
    const two = await trained(args("two"));
    assertEquals(two.code, 0, two.stderr);
    const { args: line } = options(pretrain, args("one"));
    const one = await new Deno.Command("taskset", { args: ["-c", "0", Deno.execPath(), ...line] }).output();
    assertEquals(one.code, 0);
    assert(indexedEqual(await weights(at("one")), await weights(at("two"))));
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "pretrain --estimate: parameters and seconds per step, and no file",
  ignore,
  fn: async () => {
    const { folder, store, at } = await place();
    const before = everyFile(folder);
    for (const given of [[store], []]) {
      const args = [...given, ...SMALL, "--batch", "1", "--steps", "3", "--estimate", "-o", at("run")];
      const { code, summary, stderr } = await trained(args);
      assertEquals(code, 0, stderr);
      assert(summary.parameters > 0 && summary.seconds_per_step > 0);
    }
    assertEquals(everyFile(folder), before);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "pretrain: refusals are one sentence with the right exit code and leave nothing behind",
  ignore,
  fn: async () => {
    const { folder, store, at } = await place();
    const pair = {
      seed: 0,
      index: 0,
      volume: "none",
      a: { box: [0, 0, 0, 32, 32, 32], affine: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]] },
      b: { box: [0, 0, 0, 32, 32, 32], affine: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]] },
      overlap: { a: [0, 0, 0, 1, 1, 1], b: [0, 0, 0, 1, 1, 1] },
    };
    await Deno.writeTextFile(at("none.jsonl"), JSON.stringify(pair) + "\n");
    const out = { ...pair, volume: "one", a: { ...pair.a, box: [9, 0, 0, 41, 32, 32] } };
    await Deno.writeTextFile(at("out.jsonl"), JSON.stringify(out) + "\n");
    await Deno.mkdir(at("empty"));
    const before = everyFile(folder);
    const run = at("run");
    const refused: [string[], number, string[]][] = [
      [[store, ...SMALL, "--method", "maee"], 2, ['did you mean "mae"']],
      [[store, "--device", "cpu", "--arch", "resenc-x"], 2, ["did you mean"]],
      [[store, "--arch", "resenc-s", "--patch", "40", "--device", "cpu"], 2, ["40x40x40", "32x32x32"]],
      [[store, ...SMALL, "--method", "cva", "--batch", "1"], 2, ["--batch 1"]],
      [[store, ...SMALL, "--method", "cva", "--pairs", at("none.jsonl")], 1, ["none.jsonl:1:", '"none"']],
      [[store, ...SMALL, "--method", "cva", "--pairs", at("out.jsonl")], 1, ["out.jsonl:1:", "a.box"]],
      [[at("nowhere"), ...SMALL], 1, ["nowhere", "no such store"]],
      [[at("empty"), ...SMALL], 1, ["empty", "index.jsonl"]],
      [[store, ...SMALL, "--threads", "2"], 2, ["--threads"]],
      [[store, "--arch", "resenc-s", "--patch", "32", "--device", "cuda"], 1, [
        "--device cuda",
        "--device cpu",
      ]],
    ];
    for (const [args, code, texts] of refused) {
      const got = await trained([...args, "--steps", "1", "-o", run]);
      assertEquals([got.code, got.stderr.trim().split("\n").length], [code, 1], got.stderr);
      for (const text of texts) assertStringIncludes(got.stderr, text);
      assertEquals(everyFile(folder), before);
    }
    const blocked = await trained([store, ...SMALL, "--steps", "1", "-o", join(at("none.jsonl"), "run")]);
    assertEquals(blocked.code, 1);
    assertStringIncludes(blocked.stderr, "choose another -o");
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name:
    "pretrain: a folder in use, there already, of another configuration, damaged; a loss that is not finite",
  ignore,
  fn: async () => {
    const { folder, store, at } = await place();
    const run = at("run");
    const line = (...more: string[]) => [store, ...SMALL, "--batch", "1", "-o", run, ...more];
    const refuse = async (args: string[], ...texts: string[]) => {
      const got = await trained(args);
      assertEquals([got.code, got.stderr.trim().split("\n").length], [1, 1], got.stderr);
      for (const text of texts) assertStringIncludes(got.stderr, text);
    };
    const huge = await trained([store, ...SMALL, "--steps", "9", "--lr", "1e30", "-o", at("huge")]);
    assertEquals(huge.code, 1);
    assertStringIncludes(huge.stderr, "not finite at step ");

    const held = start(line("--steps", "9999"));
    const ended = end(held);
    await reached(run, 1);
    await refuse(line("--steps", "9999"), "another run");
    held.kill("SIGTERM");
    await ended;
    await Deno.remove(run, { recursive: true });

    const fresh = await trained(line("--steps", "2", "--resume"));
    assertEquals([fresh.code, fresh.summary?.steps], [0, 2], fresh.stderr);
    await refuse(line("--steps", "2"), "--resume");
    await refuse(line("--steps", "3", "--resume"), "steps is 2 there and 3 here");
    const file = join(run, "checkpoint", "weights.safetensors");
    await Deno.writeFile(file, (await Deno.readFile(file)).subarray(0, 5000));
    await refuse(line("--steps", "2", "--resume"), file);
    await Deno.writeTextFile(join(run, "run.json"), "{");
    await refuse(line("--steps", "2", "--resume"), "run.json");
    await Deno.remove(folder, { recursive: true });
  },
});
