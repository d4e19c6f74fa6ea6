/** `finetune` and `predict` as a user runs them: the grants of their command lines, files, summaries, exit codes. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { type Command, grants, parse } from "../../lib/config.ts";
import { readNifti } from "../../lib/data/nifti.ts";
import { writePhantoms } from "../../lib/data/phantom_dataset.ts";
import { LIBRARY } from "../../lib/native/library.ts";
import { command as evaluate, extraGrants } from "../../scripts/evaluate.ts";
import { command as finetune } from "../../scripts/finetune.ts";
import { command as predict } from "../../scripts/predict.ts";

const root = fromFileUrl(new URL("../../", import.meta.url));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

function start(command: Command, args: string[]): Deno.ChildProcess {
  const { read, write } = grants(command, parse(command, args));
  if (command === evaluate) read.push(...extraGrants(parse(command, args)).read);
  const script = join(root, "scripts", `${command.name}.ts`);
  const flags = [`--allow-read=${[root, ...read].join(",")}`];
  if (write.length) flags.push(`--allow-write=${write.join(",")}`);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...flags, `--allow-ffi=${LIBRARY}`, script, ...args],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function end(child: Deno.ChildProcess) {
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const last = text(stdout).trim().split("\n").at(-1);
  return { code, summary: last ? JSON.parse(last) : undefined, stderr: text(stderr) };
}

const names = (folder: string) => [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();

Deno.test({
  name: "finetune and predict: model, label maps on the images' grids, a bad file named and the rest done",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const [data, model, out] = ["data", "model", "out"].map((name) => join(folder, name));
    for await (const _ of writePhantoms(data, { count: 5, size: 32, channels: 1, seed: 0 }));
    const trained = await end(start(finetune, [data, "-o", model, "--steps", "2", "--patch", "32"]));
    assertEquals(trained.code, 0, trained.stderr);
    assertEquals([trained.summary.steps, trained.summary.live_tensors], [2, 0]);
    assert(trained.summary.dsc >= 0 && trained.summary.validation_cases === 1);
    const files = [
      "metrics.jsonl",
      "model.json",
      "splits_final.json",
      "validation.jsonl",
      "weights.safetensors",
    ];
    assertEquals(names(model), files);
    assertEquals(JSON.parse(await Deno.readTextFile(join(model, "model.json"))).recipe, "onemmiso");

    const images = join(data, "imagesTr");
    const [first, second] = names(images);
    await Deno.writeFile(join(images, second), (await Deno.readFile(join(images, second))).slice(0, 900));
    const args = [model, images, "-o", out, "--mirror", "none", "--probabilities"];
    await Deno.mkdir(out);
    await Deno.writeFile(join(out, first.replace("_0000", "")), new Uint8Array(9));
    const foreign = await end(start(predict, args));
    assertEquals([foreign.code, names(out).length], [1, 1]);
    assertStringIncludes(foreign.stderr, "choose another -o");
    await Deno.remove(out, { recursive: true });
    const nowhere = await end(start(predict, [model, join(data, "nowhere.nii.gz"), "-o", out]));
    assertEquals([nowhere.code, names(folder).includes("out")], [1, false]);
    assertStringIncludes(nowhere.stderr, "nowhere.nii.gz: there is no such file");
    const { code, summary, stderr } = await end(start(predict, args));
    assertEquals([code, summary.cases, summary.refused.length], [1, 4, 1], stderr);
    assertStringIncludes(stderr, second);
    const scored = await end(start(evaluate, [out, data, "--metrics", "dsc"]));
    assertEquals([scored.code, scored.summary.metric], [0, "DSC"], scored.stderr);
    assertStringIncludes(scored.stderr, "of the 4 scored cases");
    const name = first.replace("_0000", "");
    const read = async (path: string) => await readNifti(await Deno.readFile(path), path);
    const [image, labels] = [await read(join(images, first)), await read(join(out, name))];
    assertEquals([labels.shape, labels.affine], [image.shape, image.affine]);
    assert(names(out).includes("prediction.json") && names(out).includes(name.replace(".nii.gz", ".npz")));
    assertEquals(names(out).filter((n) => n.endsWith(".partial")), []);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name:
    "finetune: SIGTERM ends it at once with the weights of the last whole step; what is not offered is refused",
  ignore: ignore || Deno.build.os === "windows",
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const [data, model] = ["data", "model"].map((name) => join(folder, name));
    for await (const _ of writePhantoms(data, { count: 5, size: 32, channels: 1, seed: 0 }));
    const child = start(finetune, [data, "-o", model, "--steps", "9999", "--patch", "32"]);
    const ended = end(child);
    const size = () => Deno.stat(join(model, "metrics.jsonl")).then((info) => info.size, () => 0);
    while (await size() === 0) await new Promise((done) => setTimeout(done, 50));
    const begin = performance.now();
    child.kill("SIGTERM");
    const { code, summary } = await ended;
    assert(performance.now() - begin < 2000);
    const left = names(model).includes("weights.safetensors");
    assertEquals([code, summary.interrupted, left], [143, "SIGTERM", true]);
    assertEquals(JSON.parse(await Deno.readTextFile(join(model, "model.json"))).steps, summary.steps);
    const again = await end(start(finetune, [data, "-o", model, "--steps", "9999", "--patch", "32"]));
    assertEquals(again.code, 1);
    assertStringIncludes(again.stderr, "--resume");
    await Deno.remove(join(data, "labels.csv"));
    const refused = await end(start(finetune, [data, "-o", join(folder, "no"), "--task", "regression"]));
    assertEquals([refused.code, names(folder).includes("no")], [1, false]);
    assertStringIncludes(refused.stderr, "labels.csv");
    await Deno.remove(folder, { recursive: true });
  },
});

for (const task of ["classification", "regression"]) {
  Deno.test({
    name: `finetune --task ${task}, predict, evaluate: tables and rows`,
    ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      const [data, model, out] = ["data", "model", "out"].map((name) => join(folder, name));
      for await (const _ of writePhantoms(data, { count: 10, size: 32, channels: 1, seed: 0 }));
      const trained = await end(start(finetune, [data, "-o", model, "--task", task, "--steps", "2"]));
      assertEquals([trained.code, trained.summary.live_tensors], [0, 0], trained.stderr);
      const rows = (await Deno.readTextFile(join(model, "validation.jsonl"))).trim().split("\n");
      assertEquals(rows.length, task === "classification" ? 5 : 4);
      assertEquals(JSON.parse(rows[0]).metric, task === "classification" ? "accuracy" : "MAE");
      const predicted = await end(start(predict, [model, join(data, "imagesTr"), "-o", out]));
      assertEquals([predicted.code, predicted.summary.cases], [0, 10], predicted.stderr);
      const [header, first, ...rest] = (await Deno.readTextFile(join(out, "predictions.csv"))).trim().split(
        "\n",
      );
      assertEquals([header, rest.length], [task === "classification" ? "case,p_0,p_1" : "case,value", 9]);
      const [id, ...values] = first.split(",");
      assertEquals(id, "phantom_000");
      if (task === "classification") assertAlmostEquals(Number(values[0]) + Number(values[1]), 1, 1e-5);
      const scored = await end(start(evaluate, [out, data]));
      assertStringIncludes(scored.stderr, "trained on 8 of the 10 scored cases");
      assertEquals(
        [scored.code, scored.summary.task, scored.summary.dataset],
        [0, task, "Phantom"],
        scored.stderr,
      );
      await Deno.remove(folder, { recursive: true });
    },
  });
}
