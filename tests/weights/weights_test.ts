import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { architecture } from "../../lib/arch/registry.ts";
import { resenc, resencL } from "../../lib/arch/resenc.ts";
import { unetB, unetXl } from "../../lib/arch/unet.ts";
import { decode, type Tensor } from "../../lib/data/safetensors.ts";
import { UserError } from "../../lib/errors.ts";
import type { Architecture, BuildOptions } from "../../lib/nn/network.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { readRun, transferEncoder } from "../../lib/train/transfer.ts";
import { exportWeights } from "../../lib/weights/export.ts";
import { fit, shapesOf } from "../../lib/weights/fit.ts";
import { aboutRun } from "../../lib/train/transfer.ts";
import { importWeights } from "../../lib/weights/import.ts";
import { ownHeads, publishedHead, publishedNames } from "../../lib/weights/names.ts";
import { adaptationPlan } from "../../lib/weights/plan.ts";
import { openState } from "../../lib/weights/state_file.ts";
import { swapTokenOrder } from "../../lib/weights/token_order.ts";
import { relativePositionIndex, windowEdge } from "../../lib/weights/window_index.ts";

const FILES = fromFileUrl(new URL("../../fixtures/weights/", import.meta.url));
const tiny = resenc("tiny", [4, 6], [1, 1], 8);
const candidates = [resencL, unetB, tiny];

/** The values that make_weights.py gives the tensor of this canonical name. */
function golden(name: string, length: number): number[] {
  const h = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 97;
  return Array.from({ length }, (_, j) => Math.fround(((7919 * j + 104729 * h) % 1000003) / 1000003 - 0.5));
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function weightsOf(run: string): Promise<Map<string, Tensor>> {
  const path = join(run, "checkpoint", "weights.safetensors");
  return decode(await Deno.readFile(path), path).tensors;
}

function assertGolden(tensors: Map<string, Tensor>, tolerance = 0): void {
  for (const [name, { data }] of tensors) {
    const worst = golden(name, data.length).reduce((most, v, i) => Math.max(most, Math.abs(v - data[i])), 0);
    assert(worst <= tolerance, `${name} is off by ${worst}`);
  }
}

Deno.test("weights: a file of nnssl with all aliases becomes a run, every value by its canonical name", async () => {
  await withFolder(async (folder) => {
    const run = join(folder, "run");
    const report = await importWeights(join(FILES, "nnssl.pth"), run, { candidates });
    assertEquals([report.arch, report.matched, report.encoder], ["tiny", 31, { matched: 23, total: 23 }]);
    assertEquals([report.missing, report.mismatched, report.extra, report.stale], [[], [], 0, 0]);
    const tensors = await weightsOf(run);
    assertEquals([...tensors.keys()].sort(), [...fit(tiny, tensors).shapes.keys()].sort());
    assertGolden(tensors);
    const { config, imported } = JSON.parse(await Deno.readTextFile(join(run, "run.json")));
    assertEquals(config, { method: "imported", arch: "tiny", patch: [32, 32, 64] });
    assertEquals([imported.trainer, imported.file], ["BaseMAETrainer", "nnssl.pth"]);
    assertStringIncludes(imported.citation, "MAE");
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["run"]);

    const from = await readRun(run);
    assertEquals([from.arch, from.patch], ["tiny", [32, 32, 64]]);
    using parameters = new Parameters(1);
    tiny.build(parameters, 1, 5);
    const loaded = transferEncoder(parameters, from, tiny);
    assertEquals(loaded.length, 23, "finetune --from takes the whole encoder");
    for (const name of loaded) {
      const values = parameters.tensors.get(name)!.read();
      assertEquals([...values], golden(name, values.length));
    }
  });
});

Deno.test("weights: D04c: of an S3D file the trained all_modules is taken, with mask tokens and densify convolutions", async () => {
  await withFolder(async (folder) => {
    const report = await importWeights(join(FILES, "s3d.pth"), join(folder, "run"), { candidates });
    assertEquals([report.matched, report.extra, report.missing], [31, 4, []]);
    assertEquals(report.stale, 6, "every unit of the encoder");
    const tensors = await weightsOf(join(folder, "run"));
    assertEquals(tensors.get("mask_tokens.1")!.shape, [6]);
    assertGolden(tensors);
  });
});

Deno.test("weights: prefixes of wrappers, other types and strided views; channels as the file has them", async () => {
  await withFolder(async (folder) => {
    const report = await importWeights(join(FILES, "compiled.pth"), join(folder, "run"), { candidates });
    assertEquals([report.arch, report.matched, report.mismatched, report.extra], ["tiny", 31, [], 1]);
    const tensors = await weightsOf(join(folder, "run"));
    assertEquals(tensors.get("encoder.stem.convs.0.conv.weight")!.shape, [4, 2, 3, 3, 3]);
    assertEquals(tensors.get("decoder.seg_layers.0.weight")!.shape, [3, 4, 1, 1, 1]);
    assertEquals(tensors.get("steps"), { shape: [], data: Float32Array.of(12345678) });
    assertEquals([...tensors.get("encoder.stages.1.blocks.0.skip.1.norm.weight")!.data], Array(6).fill(0.25));
    const half = new Map([...tensors].filter(([name]) => /stem|seg_layers/.test(name)));
    assertGolden(half, 2e-3);
    for (const name of ["steps", "encoder.stages.1.blocks.0.skip.1.norm.weight", ...half.keys()]) {
      tensors.delete(name);
    }
    assertGolden(tensors);
  });
});

Deno.test("weights: hostile, old, cut, foreign and missing files are refused in one sentence; nothing stays", async () => {
  await withFolder(async (folder) => {
    const cut = join(folder, "cut.pth");
    const whole = await Deno.readFile(join(FILES, "nnssl.pth"));
    await Deno.writeFile(cut, whole.subarray(0, whole.length >> 1));
    const flipped = join(folder, "flipped.pth");
    await Deno.writeFile(flipped, whole.map((byte, i) => i > 100 && i < 400 ? byte ^ 0x55 : byte));
    const text = join(folder, "text.pth");
    await Deno.writeTextFile(text, "no weights at all");
    const empty = join(folder, "empty.pth");
    await Deno.writeFile(empty, new Uint8Array());
    const out = join(folder, "run");
    const cases: [string, string][] = [
      [join(FILES, "evil.pth"), '"posix.system"'],
      [join(FILES, "legacy.pth"), "torch.save(torch.load("],
      [join(FILES, "linear.pth"), "90 % are needed"],
      [cut, "it is cut"],
      [flipped, "flipped.pth: "],
      [text, "neither"],
      [empty, "neither"],
      [FILES, "this is no file"],
      [join(folder, "none.pth"), "there is no such file"],
    ];
    for (const [file, words] of cases) {
      const error = await assertRejects(() => importWeights(file, out, { candidates }), UserError, words);
      assertEquals(error.message.split("\n").length, 1);
    }
    const other = join(FILES, "nnssl.pth");
    await assertRejects(() => importWeights(other, out, { candidates: [unetB] }), UserError, "unet-b");
    assertEquals(
      [...Deno.readDirSync(folder)].map(({ name }) => name).filter((n) => !n.endsWith(".pth")),
      [],
    );
    await Deno.writeTextFile(out, "");
    await assertRejects(() => importWeights(other, out, { candidates }), UserError, "is a file");
  });
});

Deno.test("weights: exported .pth and .safetensors come back bit for bit, with every alias on one storage", async () => {
  await withFolder(async (folder) => {
    const run = join(folder, "run");
    await importWeights(join(FILES, "s3d.pth"), run, { candidates });
    const before = await Deno.readFile(join(run, "checkpoint", "weights.safetensors"));
    const about = join(run, "run.json");
    const { config, ...rest } = JSON.parse(await Deno.readTextFile(about));
    assertEquals(config.recipe, undefined);
    await Deno.writeTextFile(about, JSON.stringify({ config: { ...config, recipe: "amaes" }, ...rest }));
    for (const suffix of ["pth", "safetensors"]) {
      const file = join(folder, `weights.${suffix}`);
      const exported = await exportWeights(run, file, { arch: tiny });
      assertEquals([exported.tensors, exported.method_tensors], [31, 4]);
      const back = join(folder, `back-${suffix}`);
      await importWeights(file, back, { candidates });
      assertEquals((await aboutRun(back)).recipe, "amaes");
      const after = decode(await Deno.readFile(join(back, "checkpoint", "weights.safetensors")), suffix);
      assertEquals(after.tensors, decode(before, "before").tensors);
      using state = openState(file);
      for (const key of ["licence", "citation", "config"]) {
        assert(typeof state.about.get(key) === "string", key);
      }
      assertEquals(JSON.parse(String(state.about.get("config"))).arch, "tiny");
    }
    using published = openState(join(FILES, "nnssl.pth"));
    using ours = openState(join(folder, "weights.pth"));
    assertEquals([...ours.tensors.keys()], [...published.tensors.keys()]);
    assertEquals(new Set([...ours.tensors.values()].map(({ place }) => place)).size, 31);
    assertEquals(ours.method.get("mask_tokens.1")!.shape, [1, 6, 1, 1, 1]);
    assert([...Deno.readDirSync(folder)].every(({ name }) => !name.includes("partial")));
    await assertRejects(() => exportWeights(run, join(folder, "x.bin")), UserError, ".safetensors");
    await assertRejects(
      () => exportWeights(join(folder, "nowhere"), join(folder, "x.pth")),
      UserError,
      "no such file",
    );
    await assertRejects(
      () => exportWeights(run, join(folder, "x.pth"), { arch: unetB }),
      UserError,
      "unet-b",
    );
  });
});

Deno.test("weights: names and shapes are the published ones, by their signatures", async () => {
  const cases: [Architecture, BuildOptions, number, string][] = [
    [resencL, {}, 956, "dadf1d1501cfc738"],
    [unetB, { light: true }, 66, "8e88e6a070babe08"],
    [unetB, {}, 82, "70ee8c00d17803c5"],
    [unetXl, { light: true }, 66, "0d1f15dd7ce5d23b"],
    [unetXl, {}, 82, "f74474a9d8687a2c"],
    [architecture("primus-m"), { patch: [160, 160, 160], hidden: "drop" }, 433, "3d816c1d322e73bf"],
    [architecture("swinunetr"), {}, 159, "84856d7663c87662"],
    [architecture("mednext-m"), { light: true }, 220, "387bc0df982c7799"],
    [architecture("mednext-m"), {}, 236, "dd40ff101b597ff9"],
    [architecture("mednext-l"), { light: true }, 316, "0058459b1f0d3cd4"],
    [architecture("mednext-l"), {}, 332, "73858bbe69b3a18e"],
  ];
  for (const [arch, options, count, signature] of cases) {
    const shapes = shapesOf(arch, 1, 1, options);
    const names = publishedNames(shapes.keys());
    for (const name of [...shapes.keys()].filter((name) => name.endsWith("_bias_table"))) {
      const tokens = windowEdge(shapes.get(name)![0]) ** 3;
      names.push([name.replace(/bias_table$/, "index"), name.replace(/bias_table$/, "index")]);
      shapes.set(names.at(-1)![1], [tokens, tokens]);
    }
    const lines = names.map(([name, of]) => `${name}|${shapes.get(of)!.join()}\n`).sort();
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines.join("")));
    const digits = [...new Uint8Array(hash, 0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    assertEquals([arch.name, names.length, digits], [arch.name, count, signature]);
  }
});

Deno.test("weights: the index of windows counts the offsets of each pair of tokens", () => {
  assertEquals([windowEdge(2197), windowEdge(27)], [7, 2]);
  const index = relativePositionIndex(2);
  assertEquals([...index.subarray(0, 8)], [13n, 12n, 10n, 9n, 4n, 3n, 1n, 0n]);
  assertEquals([index[8], index[63], new Set(index).size], [14n, 13n, 27]);
});

Deno.test("weights: the plan of nnU-Net's fine-tuning names encoder, stem and patch of networks that it can build", () => {
  assertEquals(adaptationPlan("resenc-s", 1, [64, 64, 64]), undefined);
  for (const [arch, prefix] of [["resenc-l", "encoder.stages"], ["primus-m", "eva"]]) {
    const plan = adaptationPlan(arch, 1, [160, 160, 160])!;
    const names = publishedNames(shapesOf(architecture(arch), 1, 1, { patch: [160, 160, 160] }).keys());
    assertEquals(plan.get("key_to_encoder"), prefix);
    for (const key of ["key_to_encoder", "key_to_stem", "key_to_lpe"]) {
      const value = plan.get(key) as string | null;
      if (value) assert(names.some(([name]) => name === value || name.startsWith(`${value}.`)), value);
    }
    for (const key of plan.get("keys_to_in_proj") as string[]) {
      assert(names.some(([name]) => name === `${key}.weight`), key);
    }
  }
});

Deno.test("weights: layers of projectors stand at 0, 3, 6 in published files and at 0, 1, 2 here", () => {
  const stored = (...shape: number[]) => ({ shape, place: "", read: () => new Float32Array() });
  const published = new Map([
    ["projector.0.weight", stored(8, 6)],
    ["projector.1.weight", stored(8)],
    ["projector.1.running_mean", stored(8)],
    ["projector.3.weight", stored(8, 8)],
    ["decoder_predictor.3.bias", stored(8)],
    ["attention_pooling.weight", stored(1, 6)],
  ]);
  assertEquals(ownHeads(published), ["projector.1.weight", "projector.1.running_mean"]);
  const names = [
    "attention_pooling.weight",
    "projector.0.weight",
    "projector.1.weight",
    "decoder_predictor.1.bias",
  ];
  assertEquals([...published.keys()], names);
  assertEquals(published.get("projector.1.weight")!.shape, [8, 8]);
  assertEquals(ownHeads(published), [], "ours stay");
  assertEquals([...published.keys()], names);
  assertEquals(names.map(publishedHead).slice(1), [
    "projector.0.weight",
    "projector.3.weight",
    "decoder_predictor.3.bias",
  ]);
});

Deno.test("weights: D06: the change of token order is the one that keeps the features, and its own inverse", async () => {
  const { tensors } = decode(await Deno.readFile(join(FILES, "tokens.safetensors")), "tokens");
  for (const [name, { shape, data }] of tensors) {
    if (!name.startsWith("old.")) continue;
    const bare = name.slice(4);
    const swapped = swapTokenOrder(bare, shape, data.slice(), 12);
    assertEquals(swapped, tensors.get(`new.${bare}`)!.data, bare);
    assertEquals(swapTokenOrder(bare, shape, swapped, 12), data, bare);
    assertEquals(swapTokenOrder(`feature_${bare}`, shape, data.slice(), 12), data, "another trunk stays");
  }
});
