/** What `deno task bench` times. */
import { architecture } from "../arch/registry.ts";
import { Loader } from "../data/loader.ts";
import { writeNifti } from "../data/nifti.ts";
import { sampleView } from "../data/sample.ts";
import { NiftiFile } from "../data/volume.ts";
import type { Triple } from "../data/views.ts";
import { bootstrap } from "../eval/bootstrap.ts";
import { competitions } from "../eval/columns.ts";
import { overlaps } from "../eval/dice.ts";
import { nsd } from "../eval/nsd.ts";
import { directions, type Row } from "../eval/rows.ts";
import { plan, type Settings } from "../eval/schemes.ts";
import { oneOf, UsageError } from "../errors.ts";
import { fillOptions } from "../methods/options.ts";
import { method, methods, runsOn } from "../methods/registry.ts";
import { native } from "../native/library.ts";
import { checkPatch } from "../nn/network.ts";
import { Rng } from "../rng.ts";
import { Grid, Tensor, wait } from "../tensor.ts";
import { Trainer } from "../train/pretrain.ts";
import type { Case } from "./measure.ts";
import type { Request } from "./peer.ts";

/** Layouts in which PyTorch may be faster. */
const LAYOUTS = ["first", "last"];

/** Convolutions that are queued at a time. */
const QUEUED = 8;

const normals = (length: number, seed: number) => {
  const rng = new Rng(seed, "bench");
  return Float32Array.from({ length }, () => rng.normal());
};

/**
 * 3x3x3 convolutions of one stage: channels, side of the map; by the measured rule, and in bf16 also with f32 operands in
 * Winograd's forward pass and data gradient, as `bf16-exact` (the weight gradient never takes them).
 */
export function convolutions(dtype: "f32" | "bf16"): Case[] {
  const stages = [[32, 64], [64, 32], [128, 16], [256, 8], [320, 5]];
  const rules = { "": 0, ", f32 operands": 4 };
  return stages.flatMap(([channels, side]) =>
    (["forward", "input", "weight"] as const).flatMap((direction) =>
      Object.entries(rules).filter(([, rule]) => !rule || dtype === "bf16" && direction !== "weight")
        .map(([words, rule]): Case => ({
          group: "op",
          name: `conv3d 3x3x3 C${channels} ${side}^3 ${direction} ${dtype}${words}`,
          work: 2 * 27 * channels ** 2 * side ** 3,
          unit: "FLOP",
          peak: dtype,
          peer: LAYOUTS.map((layout) => ({ work: "conv", channels, side, direction, dtype, layout })),
          prepare() {
            const n = native();
            const layout = { grid: Grid.dense(1), side: [side, side, side] as const };
            const x = Tensor.from(normals(side ** 3 * channels, 1), channels, layout, dtype);
            const dy = Tensor.from(normals(side ** 3 * channels, 2), channels, layout, dtype);
            const w = Tensor.from(
              normals(channels ** 2 * 27, 3).map((v) => v / Math.sqrt(27 * channels)),
              channels * 27,
            );
            const shape = [layout.grid.handle, side, side, side, channels, channels, 3, 1] as const;
            const call = {
              forward: () => n.vx_conv3d(x.handle, w.handle, 0, ...shape, false),
              input: () => n.vx_conv3d_grad_input(dy.handle, w.handle, ...shape),
              weight: () => n.vx_conv3d_grad_weight(x.handle, dy.handle, ...shape),
            }[direction];
            n.vx_conv3d_algorithm(rule);
            return Promise.resolve({
              // As in a training step: many are queued before anyone waits.
              run: async () => {
                for (let i = 0; i < QUEUED; i++) n.vx_tensor_free(call());
                await wait();
              },
              calls: QUEUED,
              free: () => {
                n.vx_conv3d_algorithm(0);
                [x, dy, w, layout.grid].forEach((t) => t[Symbol.dispose]());
              },
            });
          },
        }))
    )
  );
}

/** What the steps have in common. */
export interface StepOptions {
  patch: number;
  /** Images per step; methods on pairs take at least 2 for their negatives. */
  batch: number;
  dtype: "f32" | "bf16";
}

/** Whole training steps on random crops that are ready in memory, of every pair of a network and a method that exists. */
export function steps(
  archs: string[],
  names: string[],
  { patch: side, batch: least, dtype }: StepOptions,
): Case[] {
  const known = methods.map((m) => m.name);
  const wrong = names.find((name) => !known.includes(name));
  if (wrong !== undefined) throw new UsageError(`--methods names "${wrong}"; ${oneOf(wrong, known)}`);
  const pairs = archs.flatMap((arch) => names.map((name) => [architecture(arch), method(name)] as const));
  for (const [arch] of pairs) checkPatch(arch, [side, side, side]);
  return pairs.filter(([arch, chosen]) => runsOn(chosen, arch)).map(([arch, chosen]): Case => {
    const { name, views } = chosen;
    const batch = views === 2 ? Math.max(2, least) : least;
    const count = batch * views;
    const peered: string[] = { "resenc-l": ["mae", "s3d", "cva"], "primus-m": ["mae"] }[arch.name] ?? [];
    const request = { work: "step", method: name, arch: arch.name, patch: side, batch, dtype };
    const requests: Request[] = LAYOUTS.map((layout) => ({ ...request, layout }));
    if (arch.kind === "token") requests.push({ ...requests[0], compiled: true });
    return {
      group: "step",
      name: `${name} ${arch.name} ${side}^3 batch ${batch} ${dtype}`,
      work: count,
      unit: "crops",
      peer: peered.includes(name) ? requests : undefined,
      prepare() {
        const patch: Triple = [side, side, side];
        const static75 = name === "s3d" ? { cell: 16, low: 0.75, high: 0.75 } : {};
        const options = fillOptions(name, chosen.options, arch.kind ?? "cnn", static75);
        const config = {
          method: name,
          arch: arch.name,
          patch,
          batch,
          steps: 1000,
          seed: 0,
          lr: 1e-3,
          precision: dtype,
          options,
          data: "",
        };
        const trainer = new Trainer(arch, chosen, config);
        const box = Array.from({ length: count }, (_, i) => i < batch ? [0.15, 1] : [0, 0.85]);
        const images = normals(count * side ** 3, 4);
        const data = {
          images,
          ...(chosen.reversal ? { inputs: images } : {}),
          overlap: Float32Array.from(
            views === 2 ? box.flatMap(([low, high]) => [low, low, low, high, high, high]) : [],
          ),
          ids: Array.from({ length: count }, () => "noise"),
        };
        let step = 0;
        return Promise.resolve({
          run: async () => void await trainer.step(step++, data),
          free: () => trainer[Symbol.dispose](),
        });
      },
    };
  });
}

/** A smooth volume of uint16 in NIfTI bytes, voxels of `spacing` mm. */
async function scan(shape: Triple, spacing: Triple): Promise<Uint8Array> {
  const [z, y, x] = shape;
  const data = new Uint16Array(z * y * x);
  for (let i = 0; i < data.length; i++) {
    const at = [Math.floor(i / (y * x)) / z, Math.floor(i / x) % y / y, i % x / x];
    const inside = Math.hypot(...at.map((v) => v - 0.5)) < 0.46;
    data[i] = inside
      ? 500 + 300 * Math.sin(20 * at[0]) * Math.cos(17 * at[1] + 9 * at[2]) + i * 7919 % 64
      : 0;
  }
  const [sz, sy, sx] = spacing;
  return await writeNifti({
    shape,
    data,
    affine: [[sx, 0, 0, 0], [0, sy, 0, 0], [0, 0, sz, 0], [0, 0, 0, 1]],
  });
}

/** NIfTI file -> stored volume, per core. `folder` takes the file that both sides read. */
export function preparations(folder: string): Case[] {
  const scans: [string, Triple, Triple][] = [
    ["thick slices 48x256x256 at 3x0.9x0.9 mm", [48, 256, 256], [3, 0.9, 0.9]],
    ["2 mm 90x120x120", [90, 120, 120], [2, 2, 2]],
    ["1 mm 160x192x160", [160, 192, 160], [1, 1, 1]],
  ];
  return scans.map(([name, shape, spacing], i): Case => ({
    group: "preprocess",
    name: `preprocess ${name}`,
    work: shape.reduce((v, s, axis) => v * Math.round(s * spacing[axis])),
    unit: "voxels",
    cores: 1,
    peer: [{ work: "preprocess", file: `${folder}/scan-${i}.nii.gz`, out: `${folder}/scan-${i}.npy` }],
    async prepare() {
      await Deno.writeFile(`${folder}/scan-${i}.nii.gz`, await scan(shape, spacing));
      return {
        run: async () => {
          using file = await NiftiFile.decode(await Deno.readFile(`${folder}/scan-${i}.nii.gz`));
          const { bits } = await file.prepare("onemmiso");
          await Deno.writeFile(`${folder}/scan-${i}.half`, new Uint8Array(bits.buffer));
        },
      };
    },
  }));
}

/** Rotation and scale of an enlarged crop to a patch, cubic. */
export function augmentations(): Case[] {
  return [64, 96, 160].map((side): Case => {
    const large = Math.floor(side * (Math.cos(Math.PI / 6) + 0.5) / 0.85);
    const [c, s] = [0.95 * Math.cos(0.3), 0.95 * Math.sin(0.3)];
    const matrix = [[c, -s, 0], [s, c, 0], [0, 0, 0.95]];
    const offset = matrix.map((row) => (large - 1) / 2 - row.reduce((sum, v) => sum + v * (side - 1) / 2, 0));
    // Edge coordinates of our views: a voxel centre is at half.
    const affine = matrix.map((row, i) => [...row, offset[i] + 0.5 - row.reduce((sum, v) => sum + v / 2, 0)]);
    return {
      group: "augment",
      name: `rotation + scale ${large}^3 -> ${side}^3, cubic`,
      work: side ** 3,
      unit: "voxels",
      cores: 1,
      peer: [{ work: "augment", large, side, matrix, offset }],
      prepare() {
        const volume = normals(large ** 3, 5);
        const view = { box: [0, 0, 0, side, side, side], affine } as unknown as Parameters<
          typeof sampleView
        >[2];
        const out = new Float32Array(side ** 3);
        return Promise.resolve({
          run: async () => void await sampleView(volume, [large, large, large], view, out),
        });
      },
    };
  });
}

/** Normalised surface distance of two shifted label maps. */
export function distances(): Case[] {
  const shape: Triple = [160, 192, 160];
  const labels = [1, 2, 3, 4];
  const ball = (shift: number) =>
    Uint16Array.from({ length: 160 * 192 * 160 }, (_, i) => {
      const [z, y, x] = [Math.floor(i / (192 * 160)), Math.floor(i / 160) % 192, i % 160];
      const r = Math.hypot(z - 80, y - 96 + shift, x - 80);
      return r < 20 ? 1 : r < 40 ? 2 : r < 50 ? 3 : r < 60 ? 4 : 0;
    });
  return [{
    group: "nsd",
    name: "NSD of 4 structures 160x192x160",
    work: 160 * 192 * 160,
    unit: "voxels",
    prepare() {
      const [a, b] = [ball(0), ball(1)];
      return Promise.resolve({
        run: () => {
          overlaps(a, b, shape, labels).forEach((o, i) => nsd(a, b, shape, labels[i], o, [1, 1, 1], 1));
          return Promise.resolve();
        },
      });
    },
  }];
}

/** A bootstrap of a rank table: 14 methods x 11 columns of 30 cases, 1000 replicates. */
export function rankings(): Case[] {
  const [methods, columns, cases, replicates] = [14, 11, 30, 1000];
  return [{
    group: "rank",
    name: `bootstrap of ${methods} methods x ${columns} columns x ${cases} cases`,
    work: replicates,
    unit: "replicates",
    cores: 1,
    peer: [{ work: "rank", methods, columns, cases, replicates }],
    prepare() {
      const rng = new Rng(6, "bench");
      const rows: Row[] = [];
      for (let m = 0; m < methods; m++) {
        for (let d = 0; d < columns; d++) {
          for (let c = 0; c < cases; c++) {
            const [method, dataset, name] = [`m${m}`, `d${d}`, `c${c}`];
            const plain = { where: "", track: "all", group: "segmentation", part: "", repeat: "" };
            rows.push({
              ...plain,
              method,
              dataset,
              metric: "DSC",
              case: name,
              subject: name,
              value: rng.uniform(),
            });
          }
        }
      }
      const [competition] = competitions(rows, directions());
      const settings: Settings = {
        scheme: "mean-then-rank",
        ties: "average",
        missing: { kind: "none" },
        average: "column",
        weights: null,
        alpha: 0.05,
        adjust: false,
      };
      return Promise.resolve({
        run: () => Promise.resolve(void bootstrap(competition, plan(competition, settings), replicates, 0)),
      });
    },
  }];
}

/** Batches as pretraining draws them, from volumes in memory. */
export function loaders(): Case[] {
  const volumes = [0, 1, 2, 3].map((i) => ({ id: `v${i}`, shape: [160, 192, 160] as Triple }));
  const [side, batches] = [96, 4];
  return ([1, 2] as const).map((views): Case => ({
    group: "loader",
    name: `${views === 1 ? "single views" : "crop pairs"} ${side}^3, batch 2, augmented`,
    work: 2 * views * batches * side ** 3,
    unit: "voxels",
    prepare() {
      const values = normals(160 * 192 * 160, 7);
      let seed = 0;
      const store = {
        volumes,
        get: (id: string) => volumes.find((v) => v.id === id),
        read: () => Promise.resolve(values),
      };
      return Promise.resolve({
        run: async () => {
          const loader = new Loader({
            store,
            patch: [side, side, side],
            batch: 2,
            seed: seed++,
            views,
            ahead: 0,
          });
          for (let i = 0; i < batches; i++) await loader.next();
          await loader.close();
        },
      });
    },
  }));
}
