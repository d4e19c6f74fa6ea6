/**
 * What contrastive MAE, CVA, C-CVA and Gram share (LatentCampus, SSL3D 2025): a student that reconstructs two
 * masked crops of an image, an EMA teacher that sees them whole, latents of the overlap that are aligned, latents of
 * whole crops that are told apart. Each method is a file with its own defaults of these options.
 */
import { settle, Tape } from "../autograd.ts";
import { UsageError } from "../errors.ts";
import { Parameters } from "../nn/parameters.ts";
import type { Network } from "../nn/network.ts";
import { adaptivePool } from "../ops/adaptive_pool.ts";
import { align as sample, type AlignDefect } from "../ops/align.ts";
import { concat } from "../ops/concat.ts";
import { cosineLoss, rollHalf, spread } from "../ops/cosine.ts";
import { add, scale } from "../ops/elementwise.ts";
import { gramLoss } from "../ops/gram.ts";
import { ntXent } from "../ops/ntxent.ts";
import { ema } from "../ops/optimizer.ts";
import { globalAverage } from "../ops/pool.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import type { Rng } from "../rng.ts";
import { alone, type Side, Tensor, volume } from "../tensor.ts";
import { alignDefects, type Compat } from "./compat.ts";
import {
  attentionPooling,
  type Head,
  type Layer,
  predictor,
  type Projector,
  projector,
  unseen,
} from "./heads.ts";
import { cellOption, checkMask, hiddenCells, hiddenWeights, maskBatch, ratioOption } from "./masking.ts";
import type { Context, Learner, Method } from "./method.ts";
import type { Option, OptionValue, Schema, Values } from "./options.ts";

/** CNN maps of all levels are pooled to this grid before they are joined. */
const LATENT: Side = [16, 16, 16];

/** The options of the family, with CVA's defaults. */
const options = {
  cell: cellOption,
  ratio: ratioOption,
  loss: { default: "huber", choices: ["huber", "mse", "l1"], help: "loss per hidden voxel" },
  reconstruction: { default: 5, min: 0, help: "weight of that loss" },
  align: {
    default: "cosine",
    choices: ["none", "cosine", "infonce", "gram"],
    help: "how the overlap is aligned",
  },
  alignment: { default: 1, min: 0, help: "weight of the alignment" },
  aligned: { default: "7", help: "bins of the aligned overlap per axis, as 7 or 2x7x7 (z, y, x)" },
  contrastive: { default: 0.1, min: 0, help: "weight of NT-Xent between images; 0: none" },
  temperature: { default: 0.5, min: 0.001, help: "of NT-Xent and InfoNCE" },
  source: {
    default: "pyramid",
    choices: ["pyramid", "last", "decoder"],
    help: "features that are aligned: all encoder levels, the last one, or the decoder's",
  },
  projector: {
    default: "both",
    choices: ["both", "patch", "image", "none"],
    help: "latents that pass projector and predictor",
  },
  momentum: { default: 0.995, min: 0, max: 1, help: "of the teacher" },
} as const satisfies Schema;

type Family = typeof options;
type Settings = Values<Family>;

/** What `--compat` can bring back here. */
const COMPAT: readonly Compat[] = [
  "nnssl-align-axes",
  "nnssl-align-corners",
  "nnssl-align-size",
  "nnssl-teacher-statistics",
  "nnssl-box",
  "nnssl-pair-order",
  "nnssl-pair-fallback",
  "nnssl-teacher-restart",
  "nnssl-gram-for-cosine",
];

/** A method of the family: its name, its source, and where its defaults differ from CVA's. */
export function consistency(
  about: Pick<Method, "name" | "citation" | "summary">,
  defaults: Partial<Record<keyof Family, Partial<Option>>> = {},
): Method<Family> {
  const own = Object.entries(options).map(([name, option]) => [
    name,
    { ...option, ...defaults[name as keyof Family] },
  ]);
  return {
    ...about,
    views: 2,
    // The second stage of the recipe: 250 epochs of 250 steps, 150 on tokens (LatentCampus).
    steps: { cnn: 62_500, token: 37_500 },
    options: Object.fromEntries(own) as Family,
    compat: COMPAT,
    fresh: [
      "decoder.seg_layers.",
      "projector.",
      "predictor.",
      "patch_projector.",
      "patch_predictor.",
      "image_pool.",
    ],
    build: ({ source }) => ({ featureDecoder: source !== "decoder" }),
    bind,
  };
}

/** The sides of the aligned grid. @throws UsageError for what is no grid */
function readSide(text: OptionValue): Side {
  const sides = String(text).split("x").map(Number);
  const side = sides.length === 1 ? [sides[0], sides[0], sides[0]] : sides;
  if (side.length !== 3 || !side.every((n) => Number.isInteger(n) && n > 0)) {
    throw new UsageError(
      `--option aligned is "${text}"; write a number of bins (7) or three (2x7x7: z, y, x)`,
    );
  }
  return side as unknown as Side;
}

/**
 * Latents of one network of the pair: maps pooled to a grid, dense `[n][z][y][x][c]`, or to one row per crop, `[n][c]`, and
 * what the projectors make of them.
 */
interface Branch {
  pool(maps: Tensor[]): Tensor[];
  mean(pyramid: Tensor[]): Tensor;
  patch: Projector;
  image: Projector;
}

/** Which latents exist, which of them are projected, and how overlaps are sampled. */
interface Plan {
  patch: boolean;
  image: boolean;
  /** Name of the projector of each kind of latent, if it has one: one for both, but decoder features have their own. */
  heads: { patch?: string; image?: string };
  out: Side;
  defects: AlignDefect[];
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

/** A network with its projectors and, on tokens, its attention pooling; parameters go to `p`. */
function branch(
  network: Network,
  p: Parameters,
  { source }: Settings,
  plan: Plan,
  width: number,
  norm?: Head,
): Branch {
  const levels = <T>(all: readonly T[]) => source === "last" ? all.slice(-1) : all;
  const channels = sum(levels(network.features));
  const own = source === "decoder" ? sum(network.decoderFeatures!) : channels;
  const heads = new Map<string, Projector>();
  const head = (name: string | undefined, inputs: number): Projector => {
    if (!name) return ([x], sample = (x) => x) => sample(x);
    if (!heads.has(name)) heads.set(name, projector(p, name, inputs, width, norm));
    return heads.get(name)!;
  };
  const projectPatch = plan.patch ? head(plan.heads.patch, own) : undefined;
  const projectImage = plan.image ? head(plan.heads.image, channels) : undefined;
  const pool = plan.image && network.token ? attentionPooling(p, "image_pool", channels) : globalAverage;
  return {
    pool: (maps) => joined(source === "decoder" ? maps : levels(maps), network.token, plan.heads.patch),
    mean: (pyramid) => levels(pyramid).map(pool).reduce(concat),
    patch: (...latents) => projectPatch!(...latents),
    image: (...latents) => projectImage!(...latents),
  };
}

/**
 * Maps on the latent grid, joined on channels. In front of a projector the last ones stay as they are where each has half
 * the side of the one before (8^3, 4^3 ...), which `linearPyramid` takes.
 */
function joined(maps: readonly Tensor[], token?: number, projector?: string): Tensor[] {
  if (token) return [maps.reduce(concat)];
  const half = (map: Tensor, k: number) => map.space.side.every((s, d) => s === LATENT[d] / 2 ** k);
  let fine = 1;
  while (!maps.slice(fine).every((map, i) => projector && half(map, i + 1))) fine++;
  return [maps.slice(0, fine).map((map) => adaptivePool(map, LATENT)).reduce(concat), ...maps.slice(fine)];
}

/** The common box of each crop, `[n * bins][c]`: published heads see the whole grid, so this comes after them. */
function overlapOf(latents: Tensor, boxes: Float32Array, { out, defects }: Plan): Tensor {
  return sample(latents, boxes, out, 2, defects);
}

/** The teacher: a network of its own that follows the student, without what it does not use. */
function makeTeacher({ arch, parameters, patch, options, compat }: Context<Family>, plan: Plan) {
  const decodes = options.source === "decoder" && plan.patch;
  const copies = new Parameters(parameters.seed);
  const network = arch.build(copies, 1, 1, { patch, hidden: decodes ? "drop" : undefined });
  for (const [name, tensor] of decodes ? [] : [...copies.tensors]) {
    if (arch.encoderPrefixes.some((prefix) => name.startsWith(prefix))) continue;
    tensor[Symbol.dispose]();
    copies.tensors.delete(name);
  }
  const frozen = compat.has("nnssl-teacher-statistics");
  const latents = branch(network, copies, options, plan, arch.headWidth, frozen ? unseen : undefined);
  const followed = [...copies.tensors].map(([name, copy]) => [parameters.tensors.get(name)!, copy] as const);
  return {
    state: copies.tensors,
    copies: new Map(followed),
    /** Latents of the other view of each crop, with no gradient. */
    look: (image: Tensor, boxes: Float32Array) =>
      Tape.none(() =>
        alone(() => {
          const pyramid = network.encode(image);
          const maps: Tensor[] = [];
          if (decodes) network.decode(pyramid, undefined, maps);
          return {
            patch: plan.patch
              ? rollHalf(
                latents.patch(latents.pool(decodes ? maps : pyramid), (x) => overlapOf(x, boxes, plan)),
                volume(plan.out),
              )
              : null,
            image: plan.image ? rollHalf(latents.image([latents.mean(pyramid)]), 1) : null,
          };
        }, ({ patch, image }) => [patch, image].filter((t) => t !== null))
      ),
  };
}

/** Refuses options that do not fit each other, the network or the batch. */
function check({ arch, network, batch, patch, options: o, compat }: Context<Family>): void {
  checkMask(patch, network.token ?? o.cell, o.ratio);
  if (o.contrastive > 0 && batch < 2) {
    throw new UsageError(
      `--batch ${batch} gives the contrastive term no other image to compare with, so its loss would always be zero; ` +
        `use 2 or more, or --option contrastive=0`,
    );
  }
  if (o.align === "none" && o.contrastive === 0) {
    throw new UsageError(
      "--option align=none and contrastive=0 leave nothing to learn from two views; use --method mae",
    );
  }
  if (compat.has("nnssl-teacher-statistics") && !network.token) {
    throw new UsageError(
      `--compat nnssl-teacher-statistics is a defect of token networks, not of ${arch.name}`,
    );
  }
  if (o.source === "decoder" && !network.decoderFeatures) {
    throw new UsageError(
      `--option source=decoder: ${arch.name} does not offer its decoder's features; use pyramid`,
    );
  }
}

function bind(context: Context<Family>): Learner {
  const { arch, network, parameters, patch, options: o, compat } = context;
  check(context);
  const kind = o.align === "cosine" && compat.has("nnssl-gram-for-cosine") ? "gram" : o.align;
  const projects = (latent: "patch" | "image") => o.projector === "both" || o.projector === latent;
  const plan: Plan = {
    patch: kind !== "none",
    image: o.contrastive > 0,
    heads: {
      patch: projects("patch") ? (o.source === "decoder" ? "patch_projector" : "projector") : undefined,
      image: projects("image") ? "projector" : undefined,
    },
    out: readSide(o.aligned),
    defects: alignDefects(compat),
  };
  const student = branch(network, parameters, o, plan, arch.headWidth);
  const predictors = new Map<string, Layer[]>();
  for (const latent of ["patch", "image"] as const) {
    const name = plan[latent] && plan.heads[latent];
    if (!name || predictors.has(name)) continue;
    predictors.set(name, predictor(parameters, name.replace("projector", "predictor"), arch.headWidth));
  }
  const predictorOf = (latent: "patch" | "image") => predictors.get(plan.heads[latent] ?? "");
  const teacher = makeTeacher(context, plan);

  const align = (p: Tensor, z: Tensor): { loss: Tensor; accuracy?: Tensor } => {
    if (kind === "infonce") return ntXent(p, z, o.temperature);
    return { loss: kind === "gram" ? gramLoss(p, z, volume(plan.out)) : cosineLoss(p, z) };
  };
  /** The student's features and maps for the latents, after the output. */
  const features = (pyramid: Tensor[], random: Rng) =>
    network.featureDecoder ? [network.featureDecoder(pyramid, random)] : pyramid;

  return {
    state: teacher.state,
    start: () => ema({ of: teacher.copies, momentum: 0 }),
    teachers: { of: teacher.copies, momentum: o.momentum },
    loss({ batch, random }) {
      const { overlap } = batch;
      const masked = maskBatch(network, batch, patch, o.cell, o.ratio, random);
      const { image, mask } = masked;
      const target = teacher.look(image, overlap);
      const pyramid = masked.encode(network, random);
      const maps: Tensor[] = [];
      const read = o.source === "decoder" ? maps : undefined;
      const reconstruct = () => {
        const output = network.decode(pyramid, random, read, hiddenCells(mask));
        const reconstruction = reconstructionLoss(
          output,
          image,
          hiddenWeights(mask, image.space),
          o.loss,
        );
        return { loss: scale(reconstruction, o.reconstruction), output, reconstruction };
      };
      const compare = (pooled: Tensor[] | null, means: Tensor | null) => {
        const terms: Record<string, Tensor> = {};
        const parts: Tensor[] = [];
        if (pooled) {
          const z = target.patch!;
          const predicted = student.patch(pooled, (x) => overlapOf(x, overlap, plan), predictorOf("patch"));
          const { loss: alignment, accuracy } = align(predicted, z);
          parts.push(scale(alignment, o.alignment));
          Object.assign(terms, { alignment, patch_spread: spread(z) });
          if (accuracy) terms.alignment_accuracy = accuracy;
        }
        if (means) {
          const z = target.image!;
          const predicted = student.image([means], undefined, predictorOf("image"));
          const { loss: contrastive, accuracy } = ntXent(predicted, z, o.temperature);
          parts.push(scale(contrastive, o.contrastive));
          Object.assign(terms, { contrastive, contrastive_accuracy: accuracy, image_spread: spread(z) });
        }
        return { loss: parts.reduce(add), ...terms };
      };
      // Two summands of the loss, one after the other, unless the second reads maps on the way to the first.
      const apart: typeof settle = o.source === "decoder" ? (body) => body() : settle;
      // Where the order of random draws counts, or the maps, the decoder comes first; else the wider latents do.
      const early = o.source === "decoder" || network.featureDecoder ? apart(reconstruct) : undefined;
      const seen = features(pyramid, random);
      const pooled = plan.patch ? student.pool(o.source === "decoder" ? maps : seen) : null;
      const means = plan.image ? student.mean(seen) : null;
      const { loss: compared, ...terms } = apart(() => compare(pooled, means));
      const { loss: reconstructed, output, reconstruction } = early ?? apart(reconstruct);
      const loss = add(reconstructed, compared);
      return {
        loss,
        terms: { reconstruction, ...terms },
        output,
        get hidden() {
          return masked.hidden;
        },
      };
    },
  };
}
